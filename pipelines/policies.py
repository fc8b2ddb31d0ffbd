"""Further augmentations, made of layers of Keras and keras-cv. Loaded only when one of them is chosen.

Keras' layers take their random numbers from a generator that they keep. Here they get one that is made from the
picture's seed, so these policies are as reproducible as the paper's. keras-cv's layers draw random numbers that no
seed controls, so its policy is not. All compute in float32, whatever a model does. Letters: S side in px.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

CUTOUT_AREA = (0.02, 0.2)  # share of the picture that is painted over in mid grey
GRID_RATIO = (0.2, 0.5)  # side of a square / distance of two squares: at most about a quarter is painted over
RANDAUGMENT_OPS, RANDAUGMENT_FACTOR = 2, 0.3

# image (S, S, 3) float32 in [0, 255], seed (2,) -> image
Change = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def make_cutout() -> Change:
    """A function that paints a rectangle over one picture."""
    return _seeded(
        keras.layers.RandomErasing(factor=(1.0, 1.0), scale=CUTOUT_AREA, fill_value=127.5, dtype="float32")
    )


def make_grid_mask() -> Change:
    """A function that paints a grid of squares over one picture; it ignores the seed."""
    from keras_cv.layers import GridMask

    layer = GridMask(ratio_factor=GRID_RATIO, fill_value=128, dtype="float32")
    return lambda image, seed: tf.ensure_shape(layer(image, training=True), image.shape)


def make_rand_augment() -> Change:
    """A function that applies `RANDAUGMENT_OPS` of the eleven operations of Keras' RandAugment to one picture."""
    layer = _SeededRandAugment(num_ops=RANDAUGMENT_OPS, factor=RANDAUGMENT_FACTOR, dtype="float32")
    layer.build((1, None, None, 3))
    return _seeded(layer)


def _seeded(layer: Any) -> Change:
    def change(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        images = image[None]
        transformation = layer.get_random_transformation(images, training=True, seed=_PictureSeeds(seed))
        changed = layer.transform_images(images, transformation, training=True)[0]
        return tf.ensure_shape(tf.clip_by_value(changed, 0.0, 255.0), image.shape)

    return change


class _PictureSeeds(keras.random.SeedGenerator):
    """Seeds for one layer call: a function of the picture's seed and of how many were drawn, without a variable."""

    def __init__(self, seed: tf.Tensor) -> None:  # does not call Keras', which makes a variable
        self._seed = seed
        self._drawn = 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        self._drawn += 1
        return tf.random.experimental.stateless_fold_in(self._seed, self._drawn)


class _SeededRandAugment(keras.layers.RandAugment):
    """RandAugment that uses the given seeds and runs only the operations it drew (Keras' own runs all eleven)."""

    def get_random_transformation(
        self, data: tf.Tensor, training: bool = True, seed: Any = None
    ) -> dict[str, Any]:
        count = len(self._AUGMENT_LAYERS)
        drawn = tf.random.stateless_uniform((self.num_ops,), seed.next(), 0, count, tf.int32)
        transforms = {
            name: getattr(self, name).get_random_transformation(data, training=training, seed=seed)
            for name in self._AUGMENT_LAYERS
        }
        return {"transforms": transforms, "layer_idxes": drawn}

    def transform_images(
        self, images: tf.Tensor, transformation: dict[str, Any], training: bool = True
    ) -> tf.Tensor:
        for step in range(self.num_ops):
            operations = [
                lambda name=name, images=images: getattr(self, name).transform_images(
                    images, transformation["transforms"][name]
                )
                for name in self._AUGMENT_LAYERS
            ]
            images = tf.switch_case(transformation["layer_idxes"][step], operations)
        return images
