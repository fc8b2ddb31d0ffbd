"""Networks that `keras.applications` has not: one family a file."""
