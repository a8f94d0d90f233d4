"""What `triocoro.lowlevel` exports: one module a service, and what their handles share."""
