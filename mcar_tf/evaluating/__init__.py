"""A model and a split in; predictions, and how good they are, out."""
