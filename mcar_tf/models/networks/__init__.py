"""Networks that `keras.applications` does not have, one family per file."""
