"""What predictions are worth, and where they go wrong."""
