"""Weight files of other frameworks: a file in, its tensors under our layers' names out. Loads no TensorFlow."""
