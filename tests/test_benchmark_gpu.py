"""`python -m mcar_tf.benchmark_gpu` from the command line to its folder, on whatever computes here."""

import importlib.util
import json

import pytest

from mcar_tf import benchmark_gpu

TINY = ["--settings", "tiny_resnet:32:2", "--precision", "float32", "--rounds", "3", "--top-n", "2"]


def test_measurements_become_a_folder(tmp_path, capsys):
    benchmark_gpu.main([*TINY, "--variants", "default", "pytorch", "--out-dir", str(tmp_path / "report")])
    ours, peer = json.loads((tmp_path / "report" / "report.json").read_text())
    assert ours["variant"] == "default"
    for name in ("mcar_train_ms", "plain_train_ms", "mcar_infer_ms", "plain_infer_ms", "first_step_s"):
        assert ours[name] > 0
    assert ours["mcar_train_ms"] > ours["plain_train_ms"]
    if importlib.util.find_spec("torch") is None:
        assert peer["error"] == "ModuleNotFoundError: No module named 'torch'"
    else:
        assert peer["mcar_train_ms"] > 0
    assert (tmp_path / "report" / "report.md").read_text().count("| tiny_resnet |") == 2
    assert "tiny_resnet 32 2 float32 default: training " in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["default", "xla", "xla_backbone", "transposed", "no_layout"])
def test_every_variant_can_be_measured(variant, tmp_path):
    benchmark_gpu.main([*TINY, "--variants", variant, "--out-dir", str(tmp_path)])
    (result,) = json.loads((tmp_path / "report.json").read_text())
    assert "error" not in result


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--settings", "tiny_resnet:32"], r"`settings` must be backbone:image-size:batch-size, such as"),
        (["--settings", "tiny_resnet:32:0"], r"`settings` must be backbone:image-size:batch-size"),
        (["--settings", "resnet-50:32:2"], r"`backbone` must be one of .* Did you mean 'resnet50'"),
        (["--variants", "fast"], r"`variants` must be of default, pytorch, .* Received: 'fast'"),
        (["--precision", "float16"], r"`precision` must be of float32, .* Received: 'float16'"),
        (["--rounds", "2"], r"`rounds` must be at least 3. Received: 2"),
        (["--top-n", "0"], r"`top-n` must be at least 1. Received: 0"),
    ],
)
def test_what_can_not_be_measured_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        benchmark_gpu.main([*TINY, *words])
