"""Read weight files of other frameworks, and find the layers that their tensors belong to. Loads no TensorFlow."""
