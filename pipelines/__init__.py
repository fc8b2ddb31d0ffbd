"""DATA: raw sets -> TFRecord -> tf.data. Never imports `mcar_tf`."""
