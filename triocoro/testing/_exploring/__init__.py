"""Schedules of faults by chance, and the search for one that makes a program fail."""
