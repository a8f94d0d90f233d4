"""What both kinds of cluster share."""
