import keras
import numpy as np
import pytest
import tensorflow as tf
from test_mcar import batch_of, small_model

from mcar_tf.models.backbones import build_backbone
from mcar_tf.models.keras_internals import layers_of
from mcar_tf.models.rematerialize import cut, rematerialize
from mcar_tf.training.losses import binary_cross_entropy
from mcar_tf.training.optimizers import TwoRateSGD


@pytest.mark.parametrize(
    ("name", "width"), [("tiny_resnet", 1.0), ("mobilenet_v2", 0.35), ("efficientnetv2_b0", 1.0)]
)
def test_the_segments_one_after_the_other_are_the_network(name, width):
    backbone = build_backbone(name, weights=None, width=width)
    parts = cut(backbone, 4)
    assert 3 <= len(parts) <= 5
    images = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    outputs = images
    for part in parts:
        outputs = part(outputs)
    np.testing.assert_allclose(outputs, backbone(images), rtol=1e-5, atol=1e-5)
    shared = {id(v) for part in parts for v in part.variables}
    assert shared == {id(v) for v in backbone.variables}


@pytest.mark.parametrize("learning", ["pair", "single"])
def test_low_memory_trains_the_same_weights_and_statistics(learning):
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)
    results = []
    for low_memory in (False, True):
        model = small_model(backbone_width=1.0)
        model.compile(TwoRateSGD(0.01), binary_cross_entropy, learning=learning, low_memory=low_memory)
        convolution = layers_of(model.backbone, keras.layers.Conv2D)[0]
        steps, looks, turns = [], [], []  # of the graphs made, whose number is Keras' business
        model.find_boxes = counted(model.find_boxes, steps)
        convolution.call = counted(convolution.call, looks)
        model._one_stream_after_the_other = counted(model._one_stream_after_the_other, turns)
        dataset = tf.data.Dataset.from_tensors(batch_of(images)).repeat(3)
        model.fit(dataset, steps_per_epoch=3, verbose=0, shuffle=False)
        results.append(model.get_weights())
        assert len(looks) == (4 if low_memory else 2) * len(
            steps
        )  # each of the two streams again, going backward
        assert len(turns) == (len(steps) if low_memory and learning == "pair" else 0)
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_dropout_is_the_same_when_it_is_computed_again():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, padding="same")(inputs)
    x = keras.layers.Dropout(0.5, noise_shape=(None, 1, 1, 1))(x)
    x = keras.layers.Dropout(0.5)(keras.layers.Conv2D(8, 3, padding="same")(x))
    network = keras.Model(inputs, keras.layers.Conv2D(8, 3)(x))
    images = tf.random.stateless_uniform((16, 8, 8, 3), seed=(0, 0))
    seeds = [v for v in network.variables if v.path.endswith("seed_generator_state")]
    assert len(seeds) == 2
    results = []
    for look in (lambda x: network(x, training=True), lambda x: rematerialize(network, 2)(x, True)):
        for seed in seeds:
            seed.assign([7, 0])

        @tf.function
        def gradients(look=look):
            with tf.GradientTape() as tape:
                twice = tf.reduce_sum(look(images) ** 2) + tf.reduce_sum(look(images) ** 2)
            return tape.gradient(twice, network.trainable_weights)

        results.append([*gradients(), *(seed.numpy() for seed in seeds)])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def counted(function, calls):
    """The function, which notes its calls."""

    def call(*arguments, **named):
        calls.append(function)
        return function(*arguments, **named)

    return call
