"""EfficientNet-Lite0: B0 without squeeze-and-excitation and with ReLU6, made for phones and for 8-bit quantization.

Source: github.com/tensorflow/tpu, models/official/efficientnet/lite.
"""

import keras

from mcar_tf.models.networks.inverted_residual import build_inverted_residuals
from mcar_tf.models.networks.stages import EFFICIENTNET_LITE0
from mcar_tf.models.weights.names import NAMINGS


def build_efficientnet_lite0() -> keras.Model:
    """(B, H, W, 3), scaled, -> (B, H / 32, W / 32, 1280)."""
    names = NAMINGS["efficientnet_lite0"][0].pairs
    return build_inverted_residuals(EFFICIENTNET_LITE0, names, padding="same", epsilon=1e-3)
