"""Everything between files and batches."""
