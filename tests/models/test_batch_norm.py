import keras
import numpy as np
import pytest
import tensorflow as tf

from mcar_tf.models.backbones import build_backbone
from mcar_tf.models.batch_norm import (
    FusedBatchNormalization,
    check_batch_norm,
    copy_backbone,
    fuse_batch_norm,
)


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


def stream_layer(statistics="per_stream", **kwargs):
    """A layer of two channels whose weights, none at its usual value, are those of the comment."""
    layer = FusedBatchNormalization(statistics=statistics, momentum=0.9, **kwargs)
    layer.build((None, None, None, 2))
    values = [
        2.0,
        1.0,
        0.5,
        3.0,
        -0.5,
        4.0,
    ]  # gamma, beta, mean, variance, the local stream's mean and variance
    layer.set_weights([np.full(2, value, np.float32) for value in values[: len(layer.weights)]])
    return layer


def test_each_stream_is_normalized_with_statistics_of_its_own():
    x = np.full((1, 1, 1, 2), 1.5, np.float32)
    layer = stream_layer()
    # 2 * (1.5 - 0.5) / sqrt(3) + 1 and 2 * (1.5 + 0.5) / sqrt(4) + 1, epsilon 0.001 within the root
    np.testing.assert_allclose(np.ravel(layer(x)), 1 + 2 / np.sqrt(3.001), rtol=1e-6)
    np.testing.assert_allclose(np.ravel(layer(x, local_stream=True)), 1 + 4 / np.sqrt(4.001), rtol=1e-6)


@pytest.mark.parametrize("synchronized", [False, True])
def test_training_moves_the_statistics_of_the_stream_that_is_looking(synchronized):
    # Mean 2, unbiased variance 8 / 3, in both channels.
    x = np.repeat(np.array([0, 2, 4, 2], np.float32).reshape(1, 2, 2, 1), 2, -1)
    moved = [0.9 * 0.5 + 0.2, 0.9 * 3 + 0.8 / 3], [0.9 * -0.5 + 0.2, 0.9 * 4 + 0.8 / 3]
    layer = stream_layer(synchronized=synchronized)
    layer(x, training=True)
    np.testing.assert_allclose(np.array(layer.get_weights())[:, 0], [2, 1, *moved[0], -0.5, 4], rtol=1e-6)
    layer = stream_layer(synchronized=synchronized)
    layer(x, training=True, local_stream=True)
    np.testing.assert_allclose(np.array(layer.get_weights())[:, 0], [2, 1, 0.5, 3, *moved[1]], rtol=1e-6)


def test_frozen_statistics_normalize_in_training_while_gamma_and_beta_learn():
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 3, 3, 2)).astype(np.float32))
    layer = stream_layer("frozen")
    before = layer.get_weights()
    with tf.GradientTape() as tape:
        y = layer(x, training=True)
        loss = tf.reduce_sum(y**2)
    np.testing.assert_array_equal(y, layer(x, training=False))
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert [weight.name for weight in layer.trainable_weights] == ["gamma", "beta"]
    expected = tf.reduce_sum(2 * y * (x - 0.5) / np.sqrt(3.001), [0, 1, 2]), tf.reduce_sum(2 * y, [0, 1, 2])
    for gradient, slow in zip(tape.gradient(loss, layer.trainable_weights), expected, strict=True):
        np.testing.assert_allclose(gradient, slow, rtol=1e-4)


def network_with_norm() -> keras.Model:
    inputs = keras.Input((None, None, 3))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3)(inputs))
    return keras.Model(inputs, keras.layers.ReLU()(x))


def test_a_network_with_statistics_for_each_stream_begins_with_copies():
    network = network_with_norm()
    rng = np.random.default_rng(0)
    network.set_weights([rng.uniform(0.5, 2, w.shape).astype(np.float32) for w in network.weights])
    fused = fuse_batch_norm(network, 0.9, statistics="per_stream")
    *_, mean, variance, local_mean, local_variance = fused.get_layer("norm").get_weights()
    np.testing.assert_array_equal(local_mean, mean)
    np.testing.assert_array_equal(local_variance, variance)
    x = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(fused(x), network(x), atol=1e-5)


def test_weights_saved_with_one_set_of_statistics_give_it_to_both_streams(tmp_path):
    networks = {
        statistics: fuse_batch_norm(network_with_norm(), 0.9, statistics=statistics)
        for statistics in ("shared", "frozen", "per_stream")
    }
    rng = np.random.default_rng(0)
    networks["shared"].set_weights([rng.uniform(0.5, 2, w.shape) for w in networks["shared"].weights])
    networks["shared"].save_weights(tmp_path / "shared.weights.h5")
    for statistics in ("frozen", "per_stream"):
        networks[statistics].load_weights(tmp_path / "shared.weights.h5")
    expected = networks["shared"].get_layer("norm").get_weights()
    for one, other in zip(networks["frozen"].get_layer("norm").get_weights(), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    found = networks["per_stream"].get_layer("norm").get_weights()
    for one, other in zip(found, [*expected, *expected[2:]], strict=True):
        np.testing.assert_array_equal(one, other)
    networks["per_stream"].save_weights(tmp_path / "both.weights.h5")
    with (
        pytest.warns(UserWarning, match="Skipping nested container"),
        pytest.raises(ValueError, match=r"expected 4 variables.*received 6"),
    ):
        networks["shared"].load_weights(tmp_path / "both.weights.h5")


def test_unknown_statistics_are_refused():
    with pytest.raises(
        ValueError, match=r"`batch_norm` must be one of shared, per_stream, frozen. Received: 'x'"
    ):
        check_batch_norm("x")


def test_a_backbone_gives_its_weights_to_one_of_other_statistics():
    keras.utils.set_random_seed(0)
    shared, both = (
        build_backbone("tiny_resnet", weights=None, width=0.25, batch_norm=statistics)
        for statistics in ("shared", "per_stream")
    )
    rng = np.random.default_rng(0)
    shared.set_weights([rng.uniform(0.5, 1.5, values.shape) for values in shared.get_weights()])
    images = rng.uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    copy_backbone(shared, both)
    for local_stream in (False, True):
        np.testing.assert_array_equal(both(images, local_stream=local_stream), shared(images))
    both.set_weights([rng.uniform(0.5, 1.5, values.shape) for values in both.get_weights()])
    assert np.abs(both(images) - both(images, local_stream=True)).max() > 1e-3
    copy_backbone(both, shared)
    np.testing.assert_array_equal(shared(images), both(images))
