"""Histories and how they are recorded."""
