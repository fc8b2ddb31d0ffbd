"""Predictions in; figures, drawn pictures and one HTML page out."""
