import dataclasses
import errno
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest
import tensorflow as tf

from pipelines.command import (
    describe_error,
    load_tensorflow,
    option,
    options_from,
    parse_options,
    without_noise,
)

HELPERS = Path(__file__).parent.parent / "helpers"


@dataclasses.dataclass
class Renamed:
    min_precision: float = option(0.0, "Of each class.", was="precision")


@pytest.mark.parametrize("words", [["--precision", "0.9"], ["--precision=0.9"]])
def test_an_old_name_is_taken_and_answered_with_the_new_one(words, capsys):
    assert parse_options(Renamed, words, module="x", description="") == Renamed(0.9)
    assert capsys.readouterr().err == "`--precision` is now `--min-precision`\n"


@dataclasses.dataclass
class Needed:
    run: Path = option(dataclasses.MISSING, "Folder.")
    tau: float = option(0.5, "Threshold.")


def test_what_print_config_wrote_is_read_back_beside_what_must_be_given(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parse_options(Needed, ["--tau", "0.3", "--print_config"], module="x", description="")
    written = capsys.readouterr().out
    assert "run: null" in written
    (tmp_path / "x.yaml").write_text(written)
    words = ["--config", str(tmp_path / "x.yaml"), "--run", "runs/a"]
    assert parse_options(Needed, words, module="x", description="") == Needed(Path("runs/a"), 0.3)


def test_out_of_memory_names_what_to_lower():
    with pytest.raises(tf.errors.ResourceExhaustedError) as caught:
        tf.zeros([2**46], tf.uint8)  # 70 TB
    code, line = describe_error(caught.value)
    assert code == 1
    assert "out of memory. Lower --batch-size, --image-size or --top-n, or train with --low-memory" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("kind", "text", "is_it"),
    [
        (tf.errors.ResourceExhaustedError, "OOM when allocating tensor with shape[64,112,112,96]", True),
        (tf.errors.InternalError, "Failed call to cuMemAlloc: CUDA_ERROR_OUT_OF_MEMORY: out of memory", True),
        (tf.errors.InternalError, "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes", True),
        (tf.errors.UnknownError, "CUDNN_STATUS_ALLOC_FAILED", True),
        (tf.errors.InternalError, "failed to create cublas handle: CUBLAS_STATUS_ALLOC_FAILED", True),
        (tf.errors.InternalError, "CUDA_ERROR_LAUNCH_FAILED", False),
        (tf.errors.InvalidArgumentError, "input is named RESOURCE_EXHAUSTED", False),
    ],
)
def test_a_card_that_runs_out_of_memory_has_several_errors(kind, text, is_it):
    line = describe_error(kind(None, None, text))[1]
    assert line.startswith("error: out of memory. Lower --batch-size") is is_it


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("`tau` must lie\n in [0, 1)."), 2, "error: `tau` must lie in [0, 1)."),
        (
            FileNotFoundError(2, "No such file or directory", "a.csv"),
            2,
            "error: a.csv: No such file or directory",
        ),
        (
            OSError(28, "No space left on device", "a.tfrecord"),
            1,
            "the disk is full while writing a.tfrecord",
        ),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "a.csv"), 1, "the disk is full while writing a.csv"),
        (OSError(errno.EFBIG, "File too large"), 1, "error: the disk is full. Free some space"),
        # TensorFlow's writers have one word for a full disk and a full memory.
        (
            tf.errors.ResourceExhaustedError(None, None, "{{node x}} a b/events.1; No space left on device"),
            1,
            "error: the disk is full while writing a b/events.1. Free some space and run the same command again.",
        ),
        (OSError(5, "Input/output error", "a.jpg"), 1, "error: a.jpg: Input/output error"),
        (KeyError("x"), 1, "internal error: KeyError"),
    ],
)
def test_whose_fault_an_error_is_and_what_is_said(error, code, line):
    found, said = describe_error(error)
    assert found == code
    assert line in said


def test_what_the_terminal_cannot_show_is_printed_as_an_escape():
    done = subprocess.run(
        [sys.executable, HELPERS / "print_odd_names.py"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "ascii:strict"},
        check=True,
    )
    assert done.stdout == b"caf\\udce9, \\u732b\n"


@dataclasses.dataclass
class Choices:
    data_dir: Path = option(Path("data"), "")
    cache_dir: Path | None = option(None, "")
    kind: Literal["a", "b"] = option("a", "")
    drops: list[int] = option([30, 50], "")
    xla: bool = option(False, "")


def test_a_path_in_a_file_of_options_is_a_path_again():
    found = options_from(Choices, {"data_dir": "x/y", "cache_dir": None, "drops": [1]}, "config.yaml")
    assert found == Choices(data_dir=Path("x/y"), cache_dir=None, drops=[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [("kind", "c"), ("drops", 7), ("drops", ["x"]), ("xla", "maybe"), ("data_dir", 3), ("colour", "red")],
)
def test_a_wrong_value_in_a_file_of_options_is_named_with_its_file(name, value):
    with pytest.raises(ValueError, match=f"^config.yaml: `{name}: "):
        options_from(Choices, {name: value}, "config.yaml")


def test_a_file_of_many_options_takes_little_longer_than_a_file_of_one():
    names = [f"option_{i}" for i in range(80)]
    many = dataclasses.make_dataclass("Many", [(name, int, option(0, "A number.")) for name in names])

    def seconds(values):
        started = time.process_time()
        assert options_from(many, values, "config.yaml") == many(**values)
        return time.process_time() - started

    seconds({names[0]: 7})
    one, all_of_them = (min(seconds(dict.fromkeys(some, 7)) for _ in range(3)) for some in (names[:1], names))
    assert all_of_them < 5 * one


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{f'*a{i - 1}, ' * 99}]\n" for i in range(1, 99)),
            "is not YAML: it holds an alias",
        ),
        ("[" * 100_000, "config.yaml"),
        ("min_precision: 1" + "0" * 5000, "is not YAML: Exceeds the limit"),
        ("min_precision: 0.5\nmin_precision: 0.9\n", "is not YAML: it holds `min_precision` twice"),
        ("", "holds no options: there must be one a line, such as `seed: 1`"),
        ("- 1", "holds no options"),
        (b"caf\xe9: 1", "is damaged: it is not UTF-8"),
    ],
)
@pytest.mark.parametrize("given", ["--config {}", "--config={}"])
def test_a_file_of_options_that_is_none_is_named(tmp_path, text, message, given):
    file = tmp_path / "config.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=message) as error:
        parse_options(Renamed, given.format(file).split(" "), module="x", description="")
    assert str(file) in str(error.value)


def test_a_package_lists_its_commands():
    done = subprocess.run([sys.executable, "-m", "pipelines"], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert "python -m pipelines.build" in lines
    assert lines[-1] == "Each of them tells its options with --help."
    assert "python -m pipelines.command" not in lines
    for name, sentence in zip(lines[:-1:2], lines[1:-1:2], strict=True):
        assert name.startswith("python -m pipelines.")
        assert sentence.startswith("    ")
        assert sentence.endswith((".", "?"))


def test_what_keras_is_told_for_other_programs_does_not_matter(tmp_path):
    (tmp_path / "keras.json").write_text(
        '{"backend": "jax", "floatx": "float16", "image_data_format": "channels_first"}'
    )
    code = (
        "from pipelines.command import load_tensorflow; load_tensorflow()\n"
        "from mcar_tf.runs.loading import set_keras_up; set_keras_up()\n"
        "import keras; print(keras.config.backend(), keras.config.floatx(), keras.config.image_data_format())"
    )
    env = os.environ | {"KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert result.stdout == "tensorflow float32 channels_last\n"


def test_known_noise_is_left_out_and_all_else_is_printed(capfd):
    with without_noise():
        os.write(2, b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nERROR: no such op\n")
    assert capfd.readouterr().err == "ERROR: no such op\n"


def test_an_error_inside_keeps_what_was_printed_before_it(capfd):
    def breaks():
        with without_noise():
            os.write(2, b"what C++ says\n")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        breaks()
    assert capfd.readouterr().err == "what C++ says\n"


def test_of_what_tensorflow_warns_only_retracing_is_left_out(caplog):
    import tensorflow as tf

    load_tensorflow()
    tf.get_logger().warning(
        "5 out of the last 5 calls to f triggered tf.function retracing. Tracing is expensive"
    )
    tf.get_logger().warning("the disk is full")
    assert [record.getMessage() for record in caplog.records] == ["the disk is full"]
