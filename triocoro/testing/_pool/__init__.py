"""Clusters for tests: sources that lend them, and the reuse of real ones."""
