import keras
import numpy as np
import pytest
import tensorflow as tf

from mcar_tf.models.batch_norm import FusedBatchNormalization, fuse_batch_norm


def pair_of_layers(shape):
    """Keras' layer and the fused one with the same weights, none of them at its usual value."""
    layers = [kind(momentum=0.9) for kind in (keras.layers.BatchNormalization, FusedBatchNormalization)]
    rng = np.random.default_rng(0)
    weights = [rng.uniform(0.5, 2, shape[-1]).astype(np.float32) for _ in range(4)]
    for layer in layers:
        layer.build(shape)
        layer.set_weights(weights)
    return layers


@pytest.mark.parametrize("training", [False, True])
def test_outputs_and_gradients_are_those_of_keras_layer(training):
    x = tf.constant(np.random.default_rng(1).normal(3, 2, (4, 5, 6, 7)).astype(np.float32))
    goal = tf.constant(np.random.default_rng(2).normal(size=x.shape).astype(np.float32))
    results = []
    for layer in pair_of_layers(x.shape):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            loss = tf.reduce_sum(goal * y)
        results.append([y, *tape.gradient(loss, [x, *layer.trainable_weights])])
    for keras_own, fused in zip(*results, strict=True):
        np.testing.assert_allclose(fused, keras_own, rtol=1e-4, atol=1e-4)


def test_the_moving_variance_takes_the_unbiased_variance_as_torch_does():
    layer = FusedBatchNormalization(momentum=0.9)
    # Mean 2 and squared distances 4, 0, 4, 0: variance 8 / 3 (biased: 2). Moving averages start at 0 and 1.
    layer(np.array([0, 2, 4, 2], np.float32).reshape(1, 2, 2, 1), training=True)
    np.testing.assert_allclose(layer.moving_mean, [0.2], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, [0.9 + 0.8 / 3], rtol=1e-6)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_synchronized_layer_is_the_same_layer(policy):
    x = np.random.default_rng(0).normal(3, 2, (2, 3, 3, 4)).astype(np.float32)
    own, synchronized = (FusedBatchNormalization(synchronized=s, dtype=policy) for s in (False, True))
    outputs = [layer(x, training=True) for layer in (own, synchronized)]
    assert outputs[0].dtype == outputs[1].dtype
    np.testing.assert_allclose(
        *(tf.cast(y, tf.float32) for y in outputs), atol=1e-2 if policy != "float32" else 1e-5
    )
    for a, b in zip(own.get_weights(), synchronized.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2 if policy != "float32" else 1e-5)


def test_a_frozen_layer_keeps_its_statistics_and_normalizes_with_them():
    layer = pair_of_layers((2, 3, 3, 4))[1]
    layer.trainable = False
    before = layer.get_weights()
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_statistics_stay_float32_under_mixed_precision(policy):
    layer = FusedBatchNormalization(dtype=policy)
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
    assert layer(x, training=True).dtype == policy.removeprefix("mixed_")
    assert {weight.dtype for weight in layer.weights} == {"float32"}


def test_a_fused_network_is_the_network():
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, name="convolution")(inputs)
    network = keras.Model(inputs, keras.layers.ReLU()(keras.layers.BatchNormalization(name="norm")(x)))
    network.get_layer("norm").set_weights([np.full(4, v, np.float32) for v in (2.0, 1.0, 0.5, 3.0)])
    fused = fuse_batch_norm(network, momentum=0.8)
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(fused(x), network(x), atol=1e-6)
    assert type(fused.get_layer("norm")) is FusedBatchNormalization
    assert fused.get_layer("norm").momentum == 0.8
