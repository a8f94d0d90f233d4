"""Tests of the recipes, and random schedules for the agreement: `python -m recipes.schedules`."""
