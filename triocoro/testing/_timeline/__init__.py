"""Timelines: what a history says happened, for people."""
