"""An export folder behind HTTP: TensorFlow Serving's REST API, uploads, and a page."""
