"""The method: backbones, heads, localizer, crops and the two-stream model. Plain keyword arguments, no files."""
