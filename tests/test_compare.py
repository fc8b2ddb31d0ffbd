"""The interval of a difference is that of the same pictures drawn for both."""

import numpy as np
import pytest

from mcar_tf import compare, evaluate
from mcar_tf.evaluating.comparing import resample_map
from mcar_tf.metrics import mean_average_precision


def test_a_model_differs_from_itself_by_nothing_and_from_a_worse_one_by_more_than_luck():
    rng = np.random.default_rng(0)
    labels = (rng.random((200, 5)) < 0.3).astype(np.float32)
    weights = (rng.random((200, 5)) < 0.9).astype(np.float32)
    good = labels + rng.normal(0, 0.6, labels.shape)
    bad = labels + rng.normal(0, 1.2, labels.shape)
    values, resampled = resample_map(labels, weights, np.stack([good, good, bad]), resamples=100)
    np.testing.assert_array_equal(resampled[0], resampled[1])
    assert values[0] == mean_average_precision(labels, good, weights)
    assert np.percentile(resampled[0] - resampled[2], 2.5) > 0
    # Paired: what makes a draw hard makes it hard for both.
    spread = (resampled[0] - resampled[2]).std()
    assert spread < np.hypot(resampled[0].std(), resampled[2].std())
    assert resampled[0].mean() == pytest.approx(values[0], abs=0.03)


def test_streams_of_a_run_are_compared(tiny_run, capsys):
    evaluate.main(["--run", str(tiny_run)])
    words = ["--runs", str(tiny_run), "--to", str(tiny_run), "--resamples", "100"]
    capsys.readouterr()
    compare.main(words)
    assert capsys.readouterr().out.endswith(
        "difference    +0.00   95 % of 100 resamplings of the images: +0.00 to +0.00\n"
    )
    compare.main([*words, "--to-stream", "local"])
    assert "\nto   local " in capsys.readouterr().out


def test_runs_on_other_pictures_are_not_compared(tiny_run):
    evaluate.main(["--run", str(tiny_run)])
    evaluate.main(["--run", str(tiny_run), "--split", "validation"])
    other = tiny_run / "evaluations" / "validation"
    with pytest.raises(
        ValueError, match=r"validation was evaluated on other pictures than .*can't be compared"
    ):
        compare.main(["--runs", str(tiny_run), "--to", str(other)])
    (other / "predictions.npz").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"holds no predictions.npz. Run first: python -m mcar_tf.eval"
    ):
        compare.main(["--runs", str(tiny_run), "--to", str(other)])
