"""MobileNet-v2 as torchvision has it: symmetric padding, BatchNorm's epsilon 1e-5. The paper uses it."""

import keras

from mcar_tf.models.networks.inverted_residual import build_inverted_residuals
from mcar_tf.models.networks.stages import MOBILENET_V2
from mcar_tf.models.weights.names import NAMINGS


def build_torch_mobilenet_v2() -> keras.Model:
    """(B, H, W, 3), scaled, -> (B, H / 32, W / 32, 1280)."""
    names = NAMINGS["torch_mobilenet_v2"][0].pairs
    return build_inverted_residuals(MOBILENET_V2, names, padding="symmetric", epsilon=1e-5)
