"""A column of the metric tables is one line, and every table that shows metrics then has it."""

import dataclasses
import math

import numpy as np
import pytest

from mcar_tf import evaluate, fit
from mcar_tf.config import FitConfig
from mcar_tf.evaluating import columns
from mcar_tf.evaluating.columns import Detail, Measure
from mcar_tf.exporting.card import make_card
from mcar_tf.reporting.evaluated_run import read_evaluated_run
from mcar_tf.reporting.sections import comparison_parts
from mcar_tf.reporting.sweeps import read_result, table_lines
from mcar_tf.runs.thresholds import same_for_all
from pipelines.manifest import load_manifest


def test_the_papers_table_has_its_seven_measures_in_its_order():
    shown = columns.measures(Detail.PAPER)
    assert columns.titles(shown) == ["mAP", "CP", "CR", "CF1", "OP", "OR", "OF1"]
    assert columns.titles(columns.measures(Detail.SHORT)) == ["mAP", "CF1", "OF1"]
    assert columns.titles(columns.measures(Detail.FULL, of_decisions=False)) == ["mAP", "11-pt"]
    assert columns.cells(shown, {"mAP": 0.8324, "CP": None, "CR": math.nan}) == ["83.2", *["-"] * 6]


def test_a_stream_has_every_measure_and_those_of_decisions_twice():
    # Two classes: APs of 1 and 0.5; one of two claims is right, and one of two positives found.
    numbers = columns.StreamNumbers(
        np.array([1.0, 0.5]), np.array([1.0, math.nan]), counts([1, 0], [1, 1], [1, 1]), 0.125
    )
    found = columns.measure_stream(numbers, counts([1, 1], [2, 2], [1, 1]))
    assert found == {
        **{"mAP": 0.75, "mAP_11_point": 1.0},
        **{"CP": 0.5, "CR": 0.5, "CF1": 0.5, "OP": 0.5, "OR": 0.5, "OF1": 0.5},
        "ECE": 0.125,
        "top3": {"CP": 0.5, "CR": 1.0, "CF1": 2 / 3, "OP": 0.5, "OR": 1.0, "OF1": 2 / 3},
    }


def counts(*three):
    return np.array(three)


@pytest.fixture
def one_more(monkeypatch):
    """The one change: a measure of every table, the share of the classes that are claimed at all."""
    claimed = Measure("share", Detail.SHORT, lambda numbers: np.mean(numbers.decisions[1] > 0), True)
    monkeypatch.setattr(columns, "MEASURES", (*columns.MEASURES, claimed))


def test_a_measure_added_at_one_place_is_in_every_table(one_more, tiny_run, tiny_set, capsys):
    from mcar_tf.training.tensorboard import markdown_table

    evaluate.main(["--run", str(tiny_run)])
    header = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("stream"))
    assert header.split().count("share") == 2  # by thresholds, and of the top three

    found = read_result(tiny_run / "metrics.json")
    assert 0 <= found["share"] <= 1
    assert "share" in table_lines([{"tau": "0.5"} | found])[0]

    metrics = {"mAP": 0.5, "share": 0.25}
    fit.print_closing(FitConfig(), tiny_run, [fit.Row("MCAR", 5.0, metrics)], [])
    assert "MCAR                  5.00    50.0       -       -    25.0" in capsys.readouterr().out

    (run,) = [read_evaluated_run(tiny_run, "run", 0.6)]
    (table, *_) = comparison_parts([run, dataclasses.replace(run, name="other")])
    assert "<th>share</th>" in table

    card = make_card(
        *("run", run.classes, run.config, load_manifest(tiny_set, "tiny"), {}),
        {"test": {"images": 16} | run.metrics},
        *({}, same_for_all(run.classes, 0.6)),
    )
    assert "| CF1 | OP | OR | OF1 | share |" in card
    shown = columns.measures(Detail.PAPER)  # what TensorBoard's table is made of
    assert "share" in markdown_table(("stream", *columns.titles(shown)), [])
