import collections
import contextlib
import random
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from torch_files import Pickled, encode, many, name, number, storage, tensor, text, write_legacy, write_zip

from mcar_tf.models.weights import pickles
from mcar_tf.models.weights.pytorch import read_pytorch
from mcar_tf.models.weights.state_dict import read_state_dict

WRITERS = [write_zip, write_legacy]
STATE = collections.OrderedDict(
    [
        ("a.weight", np.arange(24, dtype=np.float32).reshape(2, 3, 4)),
        ("a.bias", np.array([0.5, -1.5], np.float64)),
        ("b.weight", np.array([[1.5], [65504]], np.float16)),
        ("b.num_batches_tracked", np.array(7, np.int64)),
    ]
)


@pytest.mark.parametrize("write", WRITERS)
def test_tensors_come_out_as_they_were_put_in(write, tmp_path):
    saved = write(
        tmp_path / "a.pth", {"epoch": 60, "arch": "resnet", "state_dict": STATE, "best_score": 83.5}
    )
    read = read_state_dict(saved)
    assert list(read.tensors) == list(STATE)
    for key, expected in STATE.items():
        assert read.tensors[key].shape == expected.shape
        np.testing.assert_array_equal(read.tensors[key].read(), expected)
    assert read.tensors["b.weight"].to_float32().dtype == np.float32
    assert read.notes == {"epoch": 60, "arch": "resnet", "best_score": 83.5}


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "expected"),
    [
        ((2, 3), (1, 2), 0, [[0, 2, 4], [1, 3, 5]]),  # a transposed one
        ((2,), (3,), 1, [1, 4]),
        ((), (), 5, 5),
        ((0, 3), (3, 1), 6, np.zeros((0, 3))),
    ],
)
def test_a_tensor_is_a_window_on_its_storage(shape, strides, offset, expected, tmp_path):
    part = Pickled(tensor("Float", "0", 6, shape, strides, offset))
    saved = write_zip(tmp_path / "a.pth", {"a": part}, data__0=np.arange(6, dtype=np.float32).tobytes())
    np.testing.assert_array_equal(read_pytorch(saved)["a"].read(), expected)


def test_bfloat16_is_the_upper_half_of_a_float32(tmp_path):
    part = Pickled(tensor("BFloat16", "0", 2, (2,), (1,)))
    # 1.0 is 3f80 0000 and -2.5 is c020 0000.
    saved = write_zip(tmp_path / "a.pth", {"a": part}, data__0=struct.pack("<HH", 0x3F80, 0xC020))
    np.testing.assert_array_equal(read_pytorch(saved)["a"].to_float32(), [1.0, -2.5])


def test_numbers_of_numpy_beside_the_state_dict_are_passed_over(tmp_path):
    dtype = name("numpy", "dtype") + many([text("f8"), b"\x89", b"\x88"]) + b"R(K\x03X\x01\0\0\0<NNNtb"
    raw = name("_codecs", "encode") + many([text("\0" * 8), text("latin1")]) + b"R"
    best = name("numpy.core.multiarray", "scalar") + many([dtype, raw]) + b"R"
    read = read_state_dict(write_zip(tmp_path / "a.pth", {"best": Pickled(best), "state_dict": STATE}))
    assert list(read.tensors) == list(STATE)


@pytest.mark.parametrize(
    ("program", "wanted"),
    [
        (name("os", "system") + many([text("touch ran")]) + b"R", "os.system"),
        (name("posix", "system") + many([text("touch ran")]) + b"R", "posix.system"),
        (name("builtins", "eval") + many([text("open('ran', 'w')")]) + b"R", "builtins.eval"),
        (
            text("os") + text("system") + b"\x93" + many([text("touch ran")]) + b"R",
            "os.system",
        ),  # STACK_GLOBAL
        (b"(" + text("touch ran") + b"ios\nsystem\n", "os.system"),  # INST
        (name("os", "system") + b")\x81", "os.system"),  # NEWOBJ
        (name("torchvision.models.resnet", "ResNet") + b")\x81}b", "torchvision.models.resnet.ResNet"),
        (name("argparse", "Namespace") + b")\x81}b", "argparse.Namespace"),
        (name("torch._utils", "_rebuild_tensor_v2.__globals__") + b")R", "__globals__"),
    ],
)
@pytest.mark.parametrize("write", WRITERS)
def test_a_pickle_that_wants_more_than_tensors_is_not_run(write, program, wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved = write(tmp_path / "a.pth", {"state_dict": STATE, "more": Pickled(program)})
    with pytest.raises(ValueError, match=wanted.replace(".", r"\.")) as raised:
        read_state_dict(saved)
    assert str(raised.value).startswith(f"`weights`: {saved} can't be read: it wants ")
    assert "Nothing of it was run" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "ran").exists()


def claims(shape, strides, size=4, kind="Float"):
    return {"a": Pickled(tensor(kind, "0", size, shape, strides))}


DATA = np.arange(4, dtype=np.float32).tobytes()


@pytest.mark.parametrize(
    ("value", "data", "message"),
    [
        (claims((2**31,), (1,)), DATA, r"claims 2,147,483,648 numbers where its storage holds 4"),
        (claims((2**31,), (0,)), DATA, r"claims 2,147,483,648 numbers where its storage holds 4"),
        (
            claims((2**31,), (1,), size=2**31),
            DATA,
            r"a storage of 2,147,483,648 numbers of float32 has 16 bytes",
        ),
        (claims((2, 2), (4, 1)), DATA, r"claims 4 numbers where its storage holds 4"),
        (claims((-1,), (1,)), DATA, r"shape \(-1,\).*can't be"),
        (claims((2,), (-1,)), DATA, r"strides \(-1,\).*can't be"),
        (claims((2,), (1, 1)), DATA, r"can't be"),
        (
            claims((8,), (1,), size=8, kind="Half"),
            DATA[:15],
            r"a storage of 8 numbers of float16 has 15 bytes",
        ),
        ({"a": Pickled(storage("Complex", "0", 4))}, DATA, r"it wants torch\.ComplexStorage"),
        ({"a": 1}, DATA, r"it holds no state dict, only a"),
        (["a"], DATA, r"it holds a list, no state dict"),
    ],
)
def test_what_a_file_claims_and_has_not_is_refused(value, data, message, tmp_path):
    saved = write_zip(tmp_path / "a.pth", value, data__0=data)
    with pytest.raises(ValueError, match=message):
        read_state_dict(saved)


def test_a_zip_bomb_is_refused_without_being_blown_up(tmp_path):
    bomb = write_zip(tmp_path / "a.pth", {"a": np.zeros(10_000_000, np.float32)}, compress=True)
    assert bomb.stat().st_size < 100_000

    def read():
        with pytest.raises(ValueError, match="its entries are compressed"):
            read_state_dict(bomb)

    peak_of(read, most=10_000_000)
    # An archive whose directory claims a size that it has not.
    saved = write_zip(tmp_path / "b.pth", {"a": np.zeros(4, np.float32)})
    content = bytearray(saved.read_bytes())
    directory = content.rindex(b"archive/data/0") - 46
    content[directory + 20 : directory + 28] = struct.pack("<II", 2**31, 2**31)
    saved.write_bytes(content)
    with pytest.raises(ValueError, match=r"it claims to hold 2,147,48\d,\d+ bytes"):
        read_state_dict(saved)


@pytest.mark.parametrize(
    "program",
    [
        b"r\xff\xff\xff\x7f" * 100,  # LONG_BINPUT: Python's own unpickler reserves 32 GB
        b"}" * 30_000,
        b"(" * 30_000,
        b"\x8e" + struct.pack("<Q", 2**60),  # BINBYTES8 of 2**60 bytes
        b"\x8b" + struct.pack("<i", 2**31 - 1),  # LONG4 of 2**31 bytes
        b"}" + text("k") + b"0" * 10 + b"s",
        b")" + b"2\x86" * 200,  # a tuple of itself twice, 200 times over
    ],
)
def test_a_small_pickle_takes_little_memory(program, tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MOST_STEPS", 20_000)
    saved = write_zip(tmp_path / "a.pth", {"a": Pickled(b"N" + program)})

    def read():
        with pytest.raises(ValueError, match="can't be read"):
            read_state_dict(saved)

    peak_of(read, most=5_000_000)  # 200 bytes a step, and the file


def peak_of(function, most):
    tracemalloc.start()
    try:
        function()
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("write", WRITERS)
def test_of_200_damaged_files_nothing_but_a_refusal_comes(write, tmp_path):
    whole = write(tmp_path / "whole.pth", {"epoch": 3, "state_dict": STATE}).read_bytes()
    draw, refused = random.Random(0), 0
    for number_of_file in range(200):
        content = bytearray(whole)
        if number_of_file % 2:
            content = content[: draw.randrange(len(content))]
        else:
            for _ in range(draw.choice((1, 4, 16))):
                content[draw.randrange(len(content))] = draw.randrange(256)
        damaged = tmp_path / "damaged.pth"
        damaged.write_bytes(content)
        with contextlib.suppress(ValueError):
            for part in read_state_dict(damaged).tensors.values():
                part.read()
            continue
        refused += 1
    assert refused > 150  # a byte in the middle of a number may be any


def test_what_is_no_file_of_torch_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("photo.jpg", b"x")
    with pytest.raises(
        ValueError, match=r"a\.pth can't be read: it is a zip archive that torch\.save has not written"
    ):
        read_state_dict(tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(b"\x80\x02" + encode({"a": 1}, {}) + b".")
    with pytest.raises(ValueError, match=r"it is a pickle that torch\.save has not written"):
        read_state_dict(tmp_path / "b.pth")
    (tmp_path / "c.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"c\.pth can't be read"):
        read_state_dict(tmp_path / "c.pth")


def test_numbers_with_their_highest_byte_first_are_refused(tmp_path):
    with pytest.raises(ValueError, match="highest byte first"):
        read_state_dict(write_zip(tmp_path / "a.pth", STATE, byteorder=b"big"))


def test_files_of_torch_itself(tmp_path):
    torch = pytest.importorskip("torch")
    kinds = (
        torch.float16,
        torch.float32,
        torch.float64,
        torch.bfloat16,
        torch.int64,
        torch.uint8,
        torch.bool,
    )
    state = {f"{kind}"[6:]: (torch.rand(3, 4) * 9).to(kind).t() for kind in kinds}
    state["parameter"] = torch.nn.Parameter(torch.rand(2, 2))
    for old in (True, False):
        torch.save(
            {"state_dict": state, "epoch": 3}, tmp_path / "a.pth", _use_new_zipfile_serialization=not old
        )
        read = read_state_dict(tmp_path / "a.pth")
        assert set(read.tensors) == set(state)
        for key, value in state.items():
            ours = read.tensors[key]
            ours = ours.to_float32() if "float" in key or key == "parameter" else ours.read()
            np.testing.assert_array_equal(ours, value.detach().float().numpy(), err_msg=key)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"it wants torch\.nn\.modules\.linear\.Linear"):
        read_state_dict(tmp_path / "b.pth")


def test_instructions_that_do_not_fit_together_are_damage(tmp_path):
    for program in (b"R", b"s", b"u", b"a", b"h\x05", b")R", b"K\x01)R", b"NQ", b"0", b"](K\x01K\x02u", b"e"):
        saved = write_zip(tmp_path / "a.pth", {"a": Pickled(program)})
        with pytest.raises(ValueError, match="can't be read"):
            read_state_dict(saved)
    many_numbers = write_zip(tmp_path / "a.pth", {"a": Pickled(many([number(2), text("x")]))})
    with pytest.raises(ValueError, match="no state dict"):
        read_state_dict(many_numbers)
