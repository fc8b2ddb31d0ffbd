"""The loops that the metrics are timed against compute the same numbers; how long they take is for people to read."""

import json

import pytest

from mcar_tf import benchmark_metrics


def test_loops_and_metrics_agree_and_both_are_timed(tmp_path, capsys):
    benchmark_metrics.main(
        ["--pictures", "300", "--classes", "7", "--rounds", "1", "--json", str(tmp_path / "times.json")]
    )
    rows = json.loads((tmp_path / "times.json").read_text())
    assert [row["metric"] for row in rows] == [
        "average precision",
        "11-point AP",
        "OP .. CF1",
        "OP .. CF1, top 3",
        "ECE",
        "all together",
    ]
    assert all(row["largest_difference"] < 1e-12 for row in rows)
    assert rows[-1]["seconds"] == sum(row["seconds"] for row in rows[:-1])
    assert "300 x 7 scores" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pictures", "0"], "`pictures` must be at least 1. Received: 0"),
        (["--classes", "2"], "`classes` must be at least 3. Received: 2"),
        (["--rounds", "0"], "`rounds` must be at least 1. Received: 0"),
    ],
)
def test_sizes_that_nothing_can_be_measured_on_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        benchmark_metrics.main(words)
