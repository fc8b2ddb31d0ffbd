"""How Keras saves a two-stream model: what it was compiled with in a `.keras` file, and a SavedModel."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from mcar_tf.models.keras_internals import BuiltModel


class SavedByKeras(BuiltModel):
    """A model that `keras.models.load_model` gives back as it was, so that `fit` goes on where it was saved."""

    image_size: int
    given_loss: str | keras.losses.Loss | Callable
    answer_metrics: list[keras.metrics.Metric]
    learning: str
    low_memory: bool
    distill: float
    own_region: float

    def get_compile_config(self) -> dict[str, Any]:
        """The arguments of `compile`; none if the loss can't be written to a file."""
        if not self.compiled:
            return {}
        try:
            loss = keras.saving.serialize_keras_object(self.given_loss)
        except (TypeError, ValueError):
            warnings.warn(
                "the loss can't be written to a file, so `load_model` gives a model that is not compiled: call its"
                " `compile`.",
                stacklevel=2,
            )
            return {}
        return {
            "optimizer": keras.saving.serialize_keras_object(self.optimizer),
            "loss": loss,
            "metrics": [keras.saving.serialize_keras_object(metric) for metric in self.answer_metrics],
            "learning": self.learning,
            "jit_compile": self.jit_compile,
            "low_memory": self.low_memory,
            "distill": self.distill,
            "own_region": self.own_region,
        }

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile with what `get_compile_config` gave; nothing if that was empty."""
        if config:
            self.compile(**keras.saving.deserialize_keras_object(config))
            self.optimizer.build(self.trainable_variables)

    def export(
        self, filepath: str | Path, format: str = "tf_saved_model", verbose: bool | None = None, **kwargs: Any
    ) -> None:
        """Write a SavedModel whose endpoint `serve` takes images, (B, S, S, 3) float32, and gives `call`'s outputs.

        Raises:
            ValueError: another `format`: Keras would write ops that phones and browsers don't have.
        """
        if format != "tf_saved_model":
            raise ValueError(
                "`format` must be tf_saved_model. `mcar_tf.exporting.tflite.write_tflite` writes a file for phones,"
                f" and `python -m mcar_tf.export --formats onnx` one for ONNX. Received: {format!r}"
            )
        side = self.image_size
        images = keras.InputSpec(shape=(None, side, side, 3), dtype="float32")
        super().export(filepath, format, verbose, **{"input_signature": [images]} | kwargs)
