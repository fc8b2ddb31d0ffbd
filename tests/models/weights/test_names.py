import pytest

from mcar_tf.models.networks.stages import EFFICIENTNET_LITE0, MOBILENET_V2
from mcar_tf.models.weights.names import (
    NAMINGS,
    authors_mobilenet_pairs,
    authors_resnet_pairs,
    efficientnet_pytorch_pairs,
    resnet_pairs,
    timm_pairs,
    torchvision_mobilenet_pairs,
)


def test_names_of_a_small_resnet():
    assert resnet_pairs((1, 2)) == (
        ("conv1", "bn1"),
        ("layer1.0.conv1", "layer1.0.bn1"),
        ("layer1.0.conv2", "layer1.0.bn2"),
        ("layer1.0.conv3", "layer1.0.bn3"),
        ("layer1.0.downsample.0", "layer1.0.downsample.1"),
        ("layer2.0.conv1", "layer2.0.bn1"),
        ("layer2.0.conv2", "layer2.0.bn2"),
        ("layer2.0.conv3", "layer2.0.bn3"),
        ("layer2.0.downsample.0", "layer2.0.downsample.1"),
        ("layer2.1.conv1", "layer2.1.bn1"),
        ("layer2.1.conv2", "layer2.1.bn2"),
        ("layer2.1.conv3", "layer2.1.bn3"),
    )
    assert authors_resnet_pairs((1, 2))[:3] == (
        ("features.0", "features.1"),
        ("features.4.0.conv1", "features.4.0.bn1"),
        ("features.4.0.conv2", "features.4.0.bn2"),
    )
    assert authors_resnet_pairs((1, 2))[-1] == ("features.5.1.conv3", "features.5.1.bn3")


@pytest.mark.parametrize(
    ("pairs", "stem", "first", "second", "last"),
    [
        (
            torchvision_mobilenet_pairs(MOBILENET_V2),
            ("features.0.0", "features.0.1"),
            [("features.1.conv.0.0", "features.1.conv.0.1"), ("features.1.conv.1", "features.1.conv.2")],
            [
                ("features.2.conv.0.0", "features.2.conv.0.1"),
                ("features.2.conv.1.0", "features.2.conv.1.1"),
                ("features.2.conv.2", "features.2.conv.3"),
            ],
            ("features.18.0", "features.18.1"),
        ),
        (
            authors_mobilenet_pairs(MOBILENET_V2),
            ("features.0.0.0", "features.0.0.1"),
            [("features.0.1.conv.0", "features.0.1.conv.1"), ("features.0.1.conv.3", "features.0.1.conv.4")],
            [
                ("features.0.2.conv.0", "features.0.2.conv.1"),
                ("features.0.2.conv.3", "features.0.2.conv.4"),
                ("features.0.2.conv.6", "features.0.2.conv.7"),
            ],
            ("features.1.0", "features.1.1"),
        ),
        (
            timm_pairs(EFFICIENTNET_LITE0),
            ("conv_stem", "bn1"),
            [("blocks.0.0.conv_dw", "blocks.0.0.bn1"), ("blocks.0.0.conv_pw", "blocks.0.0.bn2")],
            [
                ("blocks.1.0.conv_pw", "blocks.1.0.bn1"),
                ("blocks.1.0.conv_dw", "blocks.1.0.bn2"),
                ("blocks.1.0.conv_pwl", "blocks.1.0.bn3"),
            ],
            ("conv_head", "bn2"),
        ),
        (
            efficientnet_pytorch_pairs(EFFICIENTNET_LITE0),
            ("_conv_stem", "_bn0"),
            [("_blocks.0._depthwise_conv", "_blocks.0._bn1"), ("_blocks.0._project_conv", "_blocks.0._bn2")],
            [
                ("_blocks.1._expand_conv", "_blocks.1._bn0"),
                ("_blocks.1._depthwise_conv", "_blocks.1._bn1"),
                ("_blocks.1._project_conv", "_blocks.1._bn2"),
            ],
            ("_conv_head", "_bn1"),
        ),
    ],
)
def test_names_of_inverted_residuals(pairs, stem, first, second, last):
    assert [pairs[0], list(pairs[1:3]), list(pairs[3:6]), pairs[-1]] == [stem, first, second, last]


def test_all_namings_of_a_backbone_have_the_same_layers_and_no_two_backbones_the_same_names():
    # A convolution, and the four tensors of its BatchNorm: 53 and 104 of ResNet-50 and -101, 52 and 49.
    tensors = {
        "torch_resnet50": 265,
        "torch_resnet101": 520,
        "torch_mobilenet_v2": 260,
        "efficientnet_lite0": 245,
    }
    seen = []
    for name, namings in NAMINGS.items():
        for naming in namings:
            names = list(naming.tensors())
            assert len(names) == len(set(names)) == tensors[name]
            assert set(names) not in seen
            seen.append(set(names))


def test_what_no_backbone_needs_is_passed_over_and_nothing_else():
    naming = NAMINGS["torch_resnet50"][0]
    assert naming.is_needless("fc.weight")
    assert naming.is_needless("layer1.0.bn1.num_batches_tracked")
    assert not naming.is_needless("layer9.0.bn1.num_batches_tracked")
    assert not naming.is_needless("fcn.weight")
    assert not naming.is_needless("layer1.0.bn1.bias")
