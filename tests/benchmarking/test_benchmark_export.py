"""What an export costs: `benchmark --export`, all forms in turn with the plain backbone."""

import json

import numpy as np
import pytest

from mcar_tf import benchmark
from mcar_tf.benchmarking import exports as benchmark_export
from mcar_tf.benchmarking import timing
from mcar_tf.benchmarking.exports import compare
from mcar_tf.exporting.folder import write_checksums
from mcar_tf.exporting.saved_model import write_saved_model
from mcar_tf.exporting.tflite import write_tflite


@pytest.fixture(scope="module")
def folder(untrained_run, tmp_path_factory):
    """What an export folder holds of what is timed."""
    from mcar_tf.runs.loading import load_run

    run = load_run(untrained_run)
    folder = tmp_path_factory.mktemp("export")
    write_tflite(run.model, run.classes, folder / "mcar-float32.tflite")
    write_saved_model(run.model, run.classes, folder / "saved_model" / "1")
    model = {"num_classes": 4, "backbone": "tiny_resnet", "image_size": 32, "local_size": None, "top_n": 2}
    (folder / "parity.json").write_text(json.dumps({"model": model}))
    return folder


@pytest.mark.slow
def test_every_form_is_timed_and_weighed(folder, tmp_path, capsys, monkeypatch):
    def peak_memory(path, signature, threads, measure=benchmark_export.peak_memory):
        # A process each takes seconds: one of either runtime is enough here.
        return (
            measure(path, signature, threads)
            if (signature, threads) in (("mcar", 1), ("global_only", 0))
            else 1.0
        )

    monkeypatch.setattr(benchmark_export, "peak_memory", peak_memory)
    benchmark.main(["--export", str(folder), "--rounds", "3", "--json", str(tmp_path / "times.json")])
    results = json.loads((tmp_path / "times.json").read_text())
    found = [(result["form"], result["signature"], result["threads"]) for result in results]
    assert found == [
        ("mcar-float32.tflite", "global_only", 1),
        ("mcar-float32.tflite", "mcar", 1),
        ("mcar-float32.tflite", "global_only", 2),
        ("mcar-float32.tflite", "mcar", 2),
        ("saved_model", "serve_tensor", None),
        ("saved_model", "serving_default", None),
        ("saved_model", "global_only", None),
    ]
    for result in results:
        assert result["milliseconds"] > 0
        assert result["plain_milliseconds"] > 0
        assert result["memory_mib"] > 0
        assert result["over_plain_interval"][0] <= result["over_plain"] <= result["over_plain_interval"][1]
        assert result["rounds"] == 3
    one_pass, two_passes = results[0], results[1]
    assert two_passes["file_mb"] == one_pass["file_mb"] > 1
    header, *lines = capsys.readouterr().out.splitlines()[:8]
    assert "over the plain backbone" in header
    assert [line.split()[:2] for line in lines] == [list(row[:2]) for row in found]
    assert {len(line) for line in lines} == {len(header)}


def test_the_ratio_is_that_of_each_round(monkeypatch):
    # Rounds of (plain, other): two that don't count, then 1 and 3 seconds, then 2 and 8.
    times = iter([0, 9, 9, 10, 10, 11, 11, 20, 20, 21, 21, 24, 24, 26, 26, 34])
    monkeypatch.setattr(timing.time, "perf_counter", lambda: next(times))
    measured = compare({"plain": lambda: None, "other": lambda: None}, rounds=2)
    assert measured["other"]["over_plain"] == pytest.approx(3.5)  # the median of 3 and 4
    assert measured["other"]["milliseconds"] == pytest.approx(5500)
    assert measured["other"]["plain_milliseconds"] == pytest.approx(1500)


def test_the_interval_of_a_median_is_that_of_order_statistics():
    # 100 values: ranks 50 - 9.8 and 50 + 9.8, as the tables of the binomial have it (40 and 60 of 1 .. 100).
    assert timing.median_interval(np.arange(100.0)[::-1]) == [40, 59]


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not an export folder"):
        benchmark.main(["--export", str(tmp_path)])


def test_a_changed_file_is_refused(tmp_path):
    for name in ("parity.json", "mcar-float32.tflite"):
        (tmp_path / name).write_text("{}")
    write_checksums(tmp_path)
    (tmp_path / "mcar-float32.tflite").write_text("[]")
    with pytest.raises(ValueError, match=r"mcar-float32.tflite differs from what was exported"):
        benchmark.main(["--export", str(tmp_path)])


def test_memory_that_the_system_does_not_tell_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_export, "STATUS", tmp_path / "absent")
    assert benchmark_export.peak_memory(tmp_path, "mcar", 1) is None


def test_options_that_would_do_nothing_are_refused(tmp_path):
    (tmp_path / "parity.json").write_text("{}")
    with pytest.raises(ValueError, match="`image-size` does nothing with --export"):
        benchmark.main(["--export", str(tmp_path), "--image-size", "64"])
