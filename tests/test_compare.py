"""The command: what it prints of runs and streams, and which runs it does not compare."""

import pytest

from mcar_tf import compare, evaluate


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


def test_a_seed_below_zero_is_refused(untrained_run):
    with pytest.raises(ValueError, match=r"`seed` must be 0 or more. Received: -1"):
        compare.main(["--runs", str(untrained_run), "--to", str(untrained_run), "--seed", "-1"])
