"""What an export costs: all forms, in turn with the plain backbone."""

import json

import pytest

from mcar_tf.benchmark_export import benchmark_export, compare, table_lines
from mcar_tf.exporting.saved_model import write_saved_model
from mcar_tf.exporting.tflite import write_tflite


@pytest.fixture(scope="module")
def results(untrained_run, tmp_path_factory):
    from mcar_tf.runs import load_run

    run = load_run(untrained_run)
    folder = tmp_path_factory.mktemp("export")
    write_tflite(run.model, run.classes, folder / "mcar-float32.tflite")
    write_saved_model(run.model, run.classes, folder / "saved_model" / "1")
    model = {"num_classes": 4, "backbone": "tiny_resnet", "image_size": 32, "local_size": None, "top_n": 2}
    (folder / "parity.json").write_text(json.dumps({"model": model}))
    return benchmark_export(folder, rounds=3)


def test_every_signature_is_timed_with_one_thread_and_with_two(results):
    found = [(result["form"], result["signature"], result["threads"]) for result in results]
    assert found == [
        ("mcar-float32.tflite", "global_only", 1),
        ("mcar-float32.tflite", "mcar", 1),
        ("mcar-float32.tflite", "global_only", 2),
        ("mcar-float32.tflite", "mcar", 2),
        ("saved_model", "serve_tensor", None),
    ]


def test_numbers_are_of_things_that_happened(results):
    for result in results:
        assert result["milliseconds"] > 0
        assert result["plain_milliseconds"] > 0
        assert result["memory_mib"] > 0
        assert result["over_plain_interval"][0] <= result["over_plain"] <= result["over_plain_interval"][1]
        assert result["rounds"] == 3
    one_pass, two_passes = results[0], results[1]
    assert two_passes["file_mb"] == one_pass["file_mb"] > 1


def test_the_ratio_is_that_of_each_round():
    times = iter([0, 1, 10, 13, 20, 22, 30, 38])  # rounds of (plain, other): 1 and 3, then 2 and 8 seconds

    class Clock:
        @staticmethod
        def perf_counter():
            return next(times)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mcar_tf.benchmark_export.time", Clock)
        measured = compare({"plain": lambda: None, "other": lambda: None}, rounds=2)
    assert measured["other"]["over_plain"] == pytest.approx(3.5)  # the median of 3 and 4
    assert measured["other"]["milliseconds"] == pytest.approx(5500)
    assert measured["other"]["plain_milliseconds"] == pytest.approx(1500)


def test_the_table_has_a_line_a_result(results):
    lines = table_lines(results)
    assert len(lines) == 6
    assert "over the plain backbone" in lines[0]
    assert lines[1].startswith("mcar-float32.tflite")
    assert len({len(line) for line in lines}) == 1


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not an export folder"):
        benchmark_export(tmp_path)
