"""The run folder: opened, locked, described, and loaded again."""
