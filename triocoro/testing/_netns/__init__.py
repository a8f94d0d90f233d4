"""Real Corosync clusters in network namespaces."""
