"""The handles of `triocoro.lowlevel`: one module for each service, and their common base class."""
