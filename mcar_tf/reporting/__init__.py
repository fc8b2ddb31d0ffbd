"""Makes figures, drawn pictures and one HTML page from predictions."""
