"""A prepared set in; how fast pictures come out of it, and in how much memory."""
