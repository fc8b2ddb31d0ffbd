import json
import struct

import numpy as np
import pytest
from torch_files import write_zip

from mcar_tf.models.weights.state_dict import is_state_dict, read_state_dict

STATE = {"a.weight": np.ones((2, 2), np.float32), "b": np.zeros(1, np.float32)}


@pytest.mark.parametrize(
    "saved",
    [
        STATE,
        {"state_dict": STATE},
        {"model": STATE, "epoch": 1},
        {"model_state_dict": STATE},
        {f"module.{name}": value for name, value in STATE.items()},
        {"state_dict": {f"model.{name}": value for name, value in STATE.items()}},
        {f"module.model.{name}": value for name, value in STATE.items()},
    ],
)
def test_wrappers_around_a_state_dict_are_taken_off(saved, tmp_path):
    assert list(read_state_dict(write_zip(tmp_path / "a.pth", saved)).tensors) == list(STATE)


def test_a_prefix_of_some_names_is_part_of_them(tmp_path):
    saved = {"module.a": STATE["b"], "b": STATE["b"]}
    assert list(read_state_dict(write_zip(tmp_path / "a.pth", saved)).tensors) == ["module.a", "b"]


def test_a_file_is_known_by_how_it_begins_or_by_its_name(tmp_path):
    assert is_state_dict(write_zip(tmp_path / "weights", STATE))
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert not is_state_dict(tmp_path / "a.h5")
    (tmp_path / "a.pth").write_bytes(b"nothing")
    assert is_state_dict(tmp_path / "a.pth")


def write_safetensors(path, header, data=b""):
    """The format: the header's length, the header, the numbers."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(kind, shape, start, stop):
    return {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}


def test_safetensors_are_read_without_torch(tmp_path):
    pytest.importorskip("safetensors")
    header = {"model.a": entry("F32", [2], 0, 8), "model.b": entry("F16", [1, 2], 8, 12)}
    header |= {"model.c": entry("BF16", [1], 12, 14), "__metadata__": {"format": "pt"}}
    data = struct.pack("<ffeeH", 1.5, -2, 0.5, 4, 0x3F80)
    tensors = read_state_dict(write_safetensors(tmp_path / "a.safetensors", header, data)).tensors
    assert {name: part.to_float32().tolist() for name, part in tensors.items()} == {
        "a": [1.5, -2.0],
        "b": [[0.5, 4.0]],
        "c": [1.0],
    }


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"a": entry("F32", [2**31], 0, 2**33)}, b"1234"),
        ({"a": entry("F32", [2], 0, 4)}, b"1234"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, b"1234"),
        ({"a": entry("F32", [1], 0, 4)}, b""),
        ({"a": entry("F99", [1], 0, 4)}, b"1234"),
    ],
)
def test_damaged_safetensors_are_refused(header, data, tmp_path):
    pytest.importorskip("safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors can't be read: it is damaged: "):
        read_state_dict(write_safetensors(tmp_path / "a.safetensors", header, data))
