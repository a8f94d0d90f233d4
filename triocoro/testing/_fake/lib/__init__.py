"""The client libraries, as in Corosync's lib/ folder."""
