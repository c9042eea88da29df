"""Uses of what leaves home, run by tests."""
