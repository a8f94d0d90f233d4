"""Measurements of triocoro beside a C program that does the same: `make bench`, docs/benchmarks.md."""
