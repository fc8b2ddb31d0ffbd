"""MCAR: multi-label image recognition that looks twice, in Keras 3 on TensorFlow."""

__version__ = "0.1.0"
