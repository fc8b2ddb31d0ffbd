"""`python -m mcar_tf.benchmark` from the command line to its JSON."""

import json

import numpy as np
import pytest

from mcar_tf import benchmark
from mcar_tf.models import backbone_table

TINY = [
    "--backbone",
    "tiny_resnet",
    "--image-size",
    "32",
    "--batch-size",
    "2",
    "--top-n",
    "2",
    "--rounds",
    "3",
]
MILLISECONDS = [f"{part}_ms" for part in ("baseline", "total", "global", "global_to_local", "local")]


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_a_row_of_table_ix(mode, tmp_path, capsys):
    benchmark.main([*TINY, "--mode", mode, "--json", str(tmp_path / "times.json")])
    (result,) = json.loads((tmp_path / "times.json").read_text())
    asked = {
        "backbone": "tiny_resnet",
        "image_size": 32,
        "batch_size": 2,
        "top_n": 2,
        "glance_size": 32,
        "local_size": 32,
        "mode": mode,
        "precision": "float32",
        "xla": False,
        "rounds": 3,
    }
    assert {name: result.pop(name) for name in asked} == asked
    for name in ("total_over_baseline", "global_to_local_share"):
        low, high = result.pop(f"{name}_interval")
        assert 0 < low <= result.pop(name) <= high
    assert list(result) == MILLISECONDS
    assert all(np.isfinite(value) and value > 0 for value in result.values())
    assert result["total_ms"] > result["baseline_ms"]  # of two more looks, each as large
    assert capsys.readouterr().out.splitlines()[2].startswith("tiny_resnet      32     2")


def test_a_glance_and_looks_at_the_whole_pictures_pixels(tmp_path):
    words = [*TINY, "--image-size", "64", "--glance-size", "32", "--local-size", "16"]
    benchmark.main([*words, "--json", str(tmp_path / "times.json")])
    (result,) = json.loads((tmp_path / "times.json").read_text())
    assert [result[name] for name in ("image_size", "glance_size", "local_size")] == [64, 32, 16]


def test_every_output_is_waited_for(monkeypatch):
    import tensorflow as tf

    from mcar_tf.benchmarking.models import make_parts

    waits = []
    monkeypatch.setattr(tf.test.experimental, "sync_devices", lambda: waits.append(1))
    make_parts("tiny_resnet", 32, 2, top_n=2)["baseline"]()
    assert waits == [1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backbone", "resnet-50"], r"`backbone` must be one of .* Did you mean 'resnet50'"),
        (
            ["--backbone", "tiny_resnet", "mobilenet_v2"],
            r"`image-size` must be at least 32 px for mobilenet_v2",
        ),
        (["--local-size", "8"], r"`local-size` must be at least 16 px for tiny_resnet. Received: 8"),
        (["--local-size", "32"], r"`local-size` must be at most `image-size`, 16: .* Received: 32"),
        (["--image-size", "64", "--glance-size", "20"], r"`glance-size` must divide .* that does is 16"),
        (["--batch-size", "4", "0"], r"`batch-size` must be at least 1. Received: 0"),
        (["--top-n", "0"], r"`top-n` must lie in \[1, 80\]. Received: 0"),
        (["--rounds", "2"], r"`rounds` must be at least 3. Received: 2"),
    ],
)
def test_what_can_not_be_timed_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        benchmark.main([*TINY, "--image-size", "16", *words])


def test_a_new_line_of_the_table_can_be_timed(monkeypatch):
    line = backbone_table.Backbone("ResNet152", "caffe_bgr")
    monkeypatch.setitem(backbone_table.BACKBONES, "resnet152", line)
    benchmark.check(benchmark.BenchmarkOptions(backbone=["resnet152"]))
