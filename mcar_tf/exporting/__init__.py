"""The model on its way out: SavedModel for servers, TFLite for phones, and the proof that they are the model."""
