"""Print whether TensorFlow is installed."""

import importlib.util

print(importlib.util.find_spec("tensorflow") is not None)
