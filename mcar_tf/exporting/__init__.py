"""Export the model: SavedModel for servers, TFLite for phones, and checks that both agree with the model."""
