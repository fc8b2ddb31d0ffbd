"""Functions and exported files in; time and memory out."""
