"""Read raw sets from a disk as labelled samples."""
