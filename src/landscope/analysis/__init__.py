"""What a landscape means: one subject a file."""
