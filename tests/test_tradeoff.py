"""Accuracy over time of what can be changed without training: what is measured, kept, drawn and advised."""

import json
import shutil
from pathlib import Path

import pytest

from mcar_tf import evaluate, export, fit, tradeoff
from mcar_tf.benchmarking import tradeoff as library
from mcar_tf.benchmarking.tradeoff import OURS, PLAIN, Point, as_good_for_less, best_within, pareto_front
from mcar_tf.config import FitConfig

ONE_LOOK = Point(OURS, {"top_n": 0}, 0.60, 5.0)
TWO_REGIONS = Point(OURS, {"top_n": 2, "fusion": "mean"}, 0.70, 15.0)
FOUR_REGIONS = Point(OURS, {"top_n": 4, "fusion": "mean"}, 0.69, 25.0)
SMALL = Point(PLAIN, {"image_size": 160}, 0.58, 5.1)
LARGE = Point(PLAIN, {"image_size": 320}, 0.75, 20.0)
POINTS = [FOUR_REGIONS, LARGE, SMALL, TWO_REGIONS, ONE_LOOK]


def test_the_front_holds_what_nothing_beats_in_both():
    assert pareto_front(POINTS) == [ONE_LOOK, TWO_REGIONS, LARGE]


@pytest.mark.parametrize(
    ("budget", "best"), [(None, TWO_REGIONS), (20, TWO_REGIONS), (14.9, ONE_LOOK), (4, None)]
)
def test_the_best_within_a_budget_is_the_most_accurate_of_ours(budget, best):
    assert best_within(POINTS, budget) == best


def test_a_plain_backbone_that_is_as_good_for_no_more_is_found():
    assert as_good_for_less(POINTS, FOUR_REGIONS) == LARGE
    assert as_good_for_less(POINTS, TWO_REGIONS) is None
    assert as_good_for_less(POINTS, ONE_LOOK) is None


@pytest.fixture(scope="module")
def weighed(untrained_run, tiny_set, tmp_path_factory):
    """A run with a baseline in it, and the words that weigh it on its test split."""
    run = shutil.copytree(untrained_run, tmp_path_factory.mktemp("weighed") / "run")
    words = ["--dataset", "tiny", "--data-dir", str(tiny_set), "--out-dir", str(run / "baseline")]
    words += ["--backbone", "tiny_resnet", "--weights", "none", "--image-size", "32", "--epochs", "1"]
    fit.main([*words, "--top-n", "0", "--batch-size", "8"])
    words = ["--run", str(run), "--split", "test", "--top-n", "2", "--rounds", "2"]
    words += ["--look-shares", "0.4"]
    tradeoff.main(words)
    return run, words


def test_every_way_is_measured_timed_and_drawn(weighed):
    run, _ = weighed
    points = json.loads((run / "tradeoff" / "tradeoff.json").read_text())["points"]
    assert [(p["kind"], p["changes"]) for p in points if p["share"] == 1] == [
        ("ours", {"top_n": 0}),
        ("ours", {"top_n": 2, "fusion": "max"}),
        ("ours", {"top_n": 2, "fusion": "mean"}),
        ("ours", {"top_n": 0, "image_size": 64}),
        ("ours", {"top_n": 2, "image_size": 64, "fusion": "max"}),
        ("ours", {"top_n": 2, "image_size": 64, "fusion": "mean"}),
        ("plain", {"image_size": 32}),
        ("plain", {"image_size": 64}),
    ]
    assert all(point["milliseconds"] > 0 for point in points)
    assert len([p for p in points if p["share"] < 1]) == 4  # each size and rule of fusion
    assert (run / "tradeoff" / "tradeoff.png").read_bytes().startswith(b"\x89PNG")


def points_of(run):
    return json.loads((run / "tradeoff" / "tradeoff.json").read_text())["points"]


@pytest.mark.parametrize(
    ("changes", "stream"),
    [
        ({"top_n": 0}, "global"),
        ({"top_n": 2, "fusion": "mean"}, "fused"),
        ({"top_n": 2, "image_size": 64, "fusion": "mean"}, "fused"),
    ],
)
def test_accuracy_is_what_evaluate_measures(weighed, tmp_path, changes, stream):
    run, _ = weighed
    words = [word for name, value in changes.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    evaluate.main(["--run", str(run), *words, "--out-dir", str(tmp_path)])
    measured = json.loads((tmp_path / "metrics.json").read_text())["test"]
    (point,) = [point for point in points_of(run) if point["changes"] == changes]
    assert point["mean_ap"] == pytest.approx(measured[stream]["mAP"], abs=1e-6)


@pytest.mark.parametrize("size", [{}, {"image_size": 64}])
def test_a_share_of_the_pictures_has_the_accuracy_of_its_doubt_and_the_mean_time(weighed, tmp_path, size):
    run, _ = weighed
    points = points_of(run)
    whole = {"top_n": 2, **size, "fusion": "mean"}
    (some,) = [
        p
        for p in points
        if p["share"] < 1 and {**p["changes"], "look_doubt": None} == {**whole, "look_doubt": None}
    ]
    doubt = str(some["changes"]["look_doubt"])
    words = ["--image-size", "64"] if size else []
    evaluate.main(
        ["--run", str(run), *words, "--fusion", "mean", "--look-doubt", doubt, "--out-dir", str(tmp_path)]
    )
    measured = json.loads((tmp_path / "metrics.json").read_text())["test"]
    assert some["mean_ap"] == pytest.approx(measured["fused"]["mAP"], abs=1e-6)
    assert measured["mean_looks"] == pytest.approx(2 * some["share"])
    assert some["share"] == pytest.approx(0.4, abs=0.15)
    once, all_of_them = (
        next(p["milliseconds"] for p in points if p["changes"] == changes)
        for changes in ({"top_n": 0, **size}, whole)
    )
    assert some["milliseconds"] == pytest.approx(once + some["share"] * (all_of_them - once))


def test_a_file_of_8_bits_has_the_accuracy_of_the_exported_file(weighed, tmp_path):
    pytest.importorskip("litert_quantizer")
    run, _ = weighed
    words = ["--run", str(run), "--split", "test", "--top-n", "2", "--image-sizes", "32", "--fusions", "mean"]
    words += ["--look-shares", "0.4", "--baseline-sizes", "32", "--rounds", "1"]
    tradeoff.main([*words, "--precisions", "int8", "--out-dir", str(tmp_path / "tradeoff")])
    points = json.loads((tmp_path / "tradeoff" / "tradeoff.json").read_text())["points"]
    by_changes = {json.dumps([p["kind"], p["changes"]]): p for p in points if p["share"] == 1}
    assert list(by_changes) == [
        json.dumps(key)
        for key in (
            [OURS, {"top_n": 0, "precision": "int8"}],
            [OURS, {"top_n": 2, "precision": "int8", "fusion": "mean"}],
            [PLAIN, {"image_size": 32, "precision": "int8"}],
        )
    ]
    assert [p["changes"].get("precision") for p in points if p["share"] < 1] == ["int8"]
    assert all(point["milliseconds"] > 0 for point in points)

    # The advice's words lead to a file that answers with that accuracy.
    words = [
        "--run",
        str(run),
        "--split",
        "test",
        "--formats",
        "tflite",
        "--out-dir",
        str(tmp_path / "export"),
    ]
    export.main([*words, "--top-n", "2", "--precision", "int8", "--fusion", "mean"])
    (form,) = json.loads((tmp_path / "export" / "parity.json").read_text())["forms"].values()
    point = by_changes[json.dumps([OURS, {"top_n": 2, "precision": "int8", "fusion": "mean"}])]
    assert point["mean_ap"] == pytest.approx(form["form_mean_ap"], abs=1e-6)
    of_float32 = json.loads((run / "tradeoff" / "tradeoff.json").read_text())["points"]
    (full,) = [p for p in of_float32 if p["changes"] == {"top_n": 2, "fusion": "mean"}]
    assert point["mean_ap"] != full["mean_ap"]


def test_what_was_measured_is_not_measured_again(weighed, capsys, monkeypatch):
    run, words = weighed
    monkeypatch.setattr(library, "predict_split", None)
    words = [*words, "--image-sizes", "32", "--baseline-sizes", "32", "--fusions", "mean"]
    tradeoff.main([*words, "--budget-ms", "1000"])
    printed = capsys.readouterr().out
    assert "best within 1000 ms" in printed
    assert f"python -m mcar_tf.export --run {run} --top-n" in printed
    assert "max" not in printed
    assert "pictures: with fewer than 200, a few points of mAP are chance." in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--top-n", "0"], r"`--top-n` takes numbers of regions from 1 on. Received: \[0\]"),
        (["--fusions", "sum"], r"`--fusions` takes max and mean. Received: sum"),
        (["--precisions", "int4"], r"`precision` must be among .*. Received: 'int4'"),
        (["--look-shares", "0.2", "1"], r"`--look-shares` takes shares between 0 and 1. Received: 1"),
        (["--rounds", "0"], r"`--rounds` must be at least 1. Received: 0"),
        (["--top-n", "2", "9"], r"`--top-n` must lie in \[1, 4\], the number of classes. Received: 9"),
        (["--budget-ms", "0"], r"`--budget-ms` must be positive. Received: 0"),
        (["--budget-ms", "-1"], r"`--budget-ms` must be positive. Received: -1"),
        (["--image-sizes", "0"], r"`--image-sizes` must be in \[1, 65536\]. Received: 0"),
        (["--local-sizes", "48"], r"`--local-sizes` must be at most `--image-sizes`, 32: .* Received: 48"),
        (["--taus", "0.5", "1"], r"`--taus` must be in \[0, 1\). Received: 1"),
        (["--baseline-sizes", "64"], r"--baseline-sizes does nothing without a run of the plain backbone"),
    ],
)
def test_what_cannot_be_measured_is_refused(words, message, untrained_run):
    with pytest.raises(ValueError, match=message):
        tradeoff.main(["--run", str(untrained_run), *words])


def test_the_time_of_a_share_is_said_to_be_a_mean(weighed, capsys):
    from mcar_tf.tradeoff import TradeoffOptions, print_result

    run, _ = weighed
    whole = Point(OURS, {"top_n": 2, "fusion": "mean"}, 0.69, 15.0)
    some = Point(OURS, {"top_n": 2, "fusion": "mean", "look_doubt": 1.5}, 0.70, 8.0, share=0.3)
    print_result(TradeoffOptions(run=run), [whole, some], run)
    printed = capsys.readouterr().out
    assert "--look-doubt 1.5" in printed
    assert "mean over the pictures" in printed
    assert "Its `mcar` always takes 15.0 ms." in printed


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("0", r"`--baseline-sizes` must be in \[1, 65536\]. Received: 0"),
        ("8", r"`--baseline-sizes` must be at least 16 px for tiny_resnet. Received: 8"),
    ],
)
def test_sizes_of_the_plain_backbone_are_refused_before_ours_are_measured(
    weighed, tmp_path, monkeypatch, size, message
):
    _, words = weighed
    monkeypatch.setattr(library, "measure_accuracy", None)
    with pytest.raises(ValueError, match=message):
        tradeoff.main([*words, "--baseline-sizes", size, "--out-dir", str(tmp_path / "tradeoff")])
    assert not (tmp_path / "tradeoff").exists()


def test_the_usual_numbers_of_regions_are_those_that_a_set_has_classes_for():
    options = tradeoff.TradeoffOptions(run=Path("run"))
    assert [tradeoff.regions_to_try(options, classes) for classes in (80, 3, 1)] == [[1, 2, 4], [1, 2], [1]]


@pytest.mark.parametrize(
    ("size", "factor", "expected"), [(160, 1, 192), (224, 1, 288), (448, 2, 576), (32, 1, 64)]
)
def test_the_larger_size_is_a_fifth_larger_and_a_multiple_of_the_stride(size, factor, expected):
    assert tradeoff.larger(size, factor) == expected


def test_a_glance_is_reduced_by_the_runs_factor_whatever_the_size():
    options = tradeoff.TradeoffOptions(run=Path("run"), image_sizes=[448, 512])
    config = FitConfig(image_size=448, glance_size=224)
    assert tradeoff.own_sizes(options, config) == [{}, {"image_size": 512, "glance_size": 256}]


@pytest.mark.parametrize(("size", "nearest"), [(101, 100), (103, 104), (24, 32), (0, 32)])
def test_a_size_that_the_run_can_not_reduce_to_its_glance_is_refused(size, nearest):
    options = tradeoff.TradeoffOptions(run=Path("run"), image_sizes=[size])
    config = FitConfig(image_size=64, glance_size=32, backbone="tiny_resnet")
    said = f"takes multiples of 2, .* from 32 px on; the nearest is {nearest}. Received: {size}"
    with pytest.raises(ValueError, match=said):
        tradeoff.own_sizes(options, config)


def test_a_run_that_glances_is_weighed_at_other_sizes_too(tiny_run, tmp_path):
    config = tiny_run / "config.yaml"
    text = config.read_text().replace("image_size: 32", "image_size: 64")
    config.write_text(text.replace("glance_size: null", "glance_size: 32"))
    words = ["--run", str(tiny_run), "--split", "test", "--top-n", "2", "--fusions", "max", "--rounds", "1"]
    tradeoff.main([*words, "--image-sizes", "64", "128", "--out-dir", str(tmp_path)])
    points = json.loads((tmp_path / "tradeoff.json").read_text())["points"]
    larger = {"image_size": 128, "glance_size": 64}
    assert [p["changes"] for p in points if p["share"] == 1] == [
        {"top_n": 0},
        {"top_n": 2, "fusion": "max"},
        {"top_n": 0, **larger},
        {"top_n": 2, **larger, "fusion": "max"},
    ]


def test_thresholds_of_another_localizer_are_refused():
    options = tradeoff.TradeoffOptions(run=Path("run"), taus=[0.3])
    with pytest.raises(ValueError, match=r"--taus does nothing with the run's localizer, moments"):
        tradeoff.check_options(options, FitConfig(localizer="moments"))


@pytest.mark.parametrize(
    ("point", "words"),
    [
        (Point(OURS, {"top_n": 0, "image_size": 192}, 0.5), "one look at 192 px"),
        (
            Point(OURS, {"top_n": 1, "local_size": 128, "tau": 0.3, "fusion": "max"}, 0.5),
            "1 region of 128 px, tau 0.3, max",
        ),
        (
            Point(OURS, {"top_n": 2, "image_size": 64, "fusion": "mean", "look_doubt": 1.0}, 0.5, share=0.25),
            "2 regions at 64 px, mean, for 25.0 % of pictures",
        ),
        (Point(PLAIN, {"image_size": 192}, 0.5), "plain backbone, 192 px"),
        (Point(PLAIN, {"image_size": 192, "precision": "int8"}, 0.5), "plain backbone, 192 px, int8"),
        (Point(OURS, {"top_n": 0, "precision": "int8"}, 0.5), "one look, int8"),
    ],
)
def test_a_way_is_told_in_words(point, words):
    assert tradeoff.describe(point) == words
