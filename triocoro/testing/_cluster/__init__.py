"""Parts shared by real and fake clusters."""
