"""Where a run stands: what an epoch adds to it, when patience ends, what is printed."""

import pytest

from mcar_tf.training.state import RunState, epoch_line


def test_an_epoch_is_added_and_the_best_is_kept():
    state = RunState(epoch=3, steps=7)
    first, worse, better = ({"epoch": e, "val_mAP_fused": m} for e, m in ((4, 0.5), (5, 0.4), (6, 0.6)))
    assert [state.add(row) for row in (first, worse, better)] == [True, False, True]
    assert (state.epoch, state.steps, state.history) == (6, 0, [first, worse, better])
    assert state.best == better
    assert not state.add({"epoch": 7})  # without a validation split


def test_patience_counts_from_the_best_epoch():
    assert not RunState(epoch=3, best={"epoch": 2}).out_of_patience(2)
    assert RunState(epoch=4, best={"epoch": 2}).out_of_patience(2)
    assert RunState(epoch=2).out_of_patience(2)
    assert not RunState(epoch=40, best={"epoch": 2}).out_of_patience(0)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (
            {"epoch": 9, "loss": 0.5, "images_per_second": 12.3, "seconds": 3700.0},
            "epoch  9/10  loss 0.5000  12 images/s  1:01:40 left",
        ),
        (
            {
                **{"epoch": 10, "loss": 0.5, "global_loss": 0.2, "local_loss": 0.3},
                **{"val_mAP_fused": 0.416, "val_mAP_global": 0.4, "val_mAP_local": float("nan")},
                **{"images_per_second": 12.3, "seconds": 5.0},
            },
            "epoch 10/10  loss 0.5000 (global 0.2000, local 0.3000)  val mAP 41.6 (global 40.0, local -)"
            "  12 images/s  done",
        ),
    ],
)
def test_the_line_of_an_epoch(row, line):
    assert epoch_line(row, 10, waited=0.099) == line


def test_the_line_of_an_epoch_says_how_long_it_waited_for_pictures():
    row = {"epoch": 10, "loss": 0.5, "images_per_second": 12.3, "seconds": 5.0}
    assert epoch_line(row, 10, waited=0.383).endswith("  12 images/s  waited for pictures 38%  done")
