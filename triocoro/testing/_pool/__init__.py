"""Real clusters that are used again."""
