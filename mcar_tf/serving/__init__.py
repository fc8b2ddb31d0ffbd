"""Serve an export folder over HTTP: TensorFlow Serving's REST API, uploads, and a page."""
