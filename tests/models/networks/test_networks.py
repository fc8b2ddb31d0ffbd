"""Our networks beside the slow definition of PyTorch's, from weights files to activation maps."""

import keras
import numpy as np
import pytest
import torch_networks as oracle
from torch_files import write_legacy, write_zip

from mcar_tf.exporting.tflite import convert_tflite, list_ops
from mcar_tf.models.backbones import build_backbone
from mcar_tf.models.mcar import build_mcar

NETWORKS = {
    "torch_resnet50": (oracle.resnet50, oracle.resnet50_pairs, oracle.torchvision_scaling, write_zip),
    "torch_mobilenet_v2": (
        oracle.mobilenet_v2,
        oracle.mobilenet_v2_pairs,
        oracle.torchvision_scaling,
        write_zip,
    ),
    "efficientnet_lite0": (oracle.lite0, oracle.lite0_pairs, oracle.lite_scaling, write_legacy),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_activation_maps_are_those_of_the_slow_definition(name, tmp_path):
    network, pairs, scaling, write = NETWORKS[name]
    state = oracle.random_state(pairs())
    backbone = build_backbone(name, weights=write(tmp_path / "a.pth", state))
    norms = [one for one in backbone._flatten_layers() if isinstance(one, keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} == {0.9}
    # An odd side: both ways of padding differ from each other there too, and 75 / 32 is rounded up.
    for side in (64, 75):
        image = np.random.default_rng(side).uniform(0, 255, (side, side, 3))
        expected = network(scaling(image), state)
        maps = np.asarray(backbone(image[np.newaxis].astype(np.float32)))[0]
        assert maps.shape == (-(-side // 32), -(-side // 32), 2048 if "resnet" in name else 1280)
        np.testing.assert_allclose(maps, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
def test_a_phone_needs_built_in_ops_only():
    model = build_mcar(3, "torch_mobilenet_v2", image_size=64, top_n=1, weights=None)
    ops = list_ops(convert_tflite(model))["mcar"]
    assert ops["DEPTHWISE_CONV_2D"] == 2 * 17
    assert not [op for op in ops if op.startswith("CUSTOM")]
