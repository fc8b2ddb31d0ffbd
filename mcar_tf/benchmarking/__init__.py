"""Measure how much time and memory functions and exported files take."""
