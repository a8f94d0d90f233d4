"""The daemon: Totem, the services and what they need, as in Corosync's exec/ folder."""
