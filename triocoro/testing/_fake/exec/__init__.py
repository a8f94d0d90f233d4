"""The daemon: totem, the services, and the rest of Corosync's folder exec/."""
