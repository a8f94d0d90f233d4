"""pytest plugin: throwaway Corosync clusters, real or fake, as fixtures."""
