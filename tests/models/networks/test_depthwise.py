import keras
import numpy as np

from mcar_tf.models.networks.depthwise import use_depthwise_convolutions


def network_of(*layers):
    inputs = x = keras.Input((None, None, 4))
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def test_a_convolution_of_a_channel_a_group_becomes_depthwise_with_the_same_sums():
    keras.utils.set_random_seed(0)
    network = network_of(
        keras.layers.Conv2D(4, (3, 5), padding="same", groups=4, activation="relu", name="grouped"),
        keras.layers.Conv2D(6, 3, strides=2, name="plain"),
        keras.layers.Conv2D(6, 3, strides=2, groups=6, use_bias=False),
    )
    network.layers[1].bias.assign([1, 2, 3, 4])
    turned = use_depthwise_convolutions(network)
    kinds = [type(layer).__name__ for layer in turned.layers[1:]]
    assert kinds == ["DepthwiseConv2D", "Conv2D", "DepthwiseConv2D"]
    assert turned.layers[1].name == "grouped"
    images = np.random.default_rng(0).random((2, 11, 9, 4), np.float32)
    np.testing.assert_allclose(turned(images), network(images), atol=1e-6)


def test_other_networks_are_returned_as_they_are():
    # Two channels a group; twice as many filters as channels; one channel.
    network = network_of(keras.layers.Conv2D(4, 1, groups=2), keras.layers.Conv2D(8, 1, groups=4))
    assert use_depthwise_convolutions(network) is network
    assert use_depthwise_convolutions(network_of(keras.layers.Conv2D(1, 1, groups=1))).layers[1].filters == 1
