"""Runs and the pictures that they never learnt from in, labels that are likely to be wrong or missing out."""
