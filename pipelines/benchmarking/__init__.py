"""Measure how fast pictures are read from a prepared set, and how much memory that takes."""
