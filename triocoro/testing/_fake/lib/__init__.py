"""The client libraries, as in Corosync's folder lib/."""
