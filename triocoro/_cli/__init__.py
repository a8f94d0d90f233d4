"""The command line: `python -m triocoro`."""
