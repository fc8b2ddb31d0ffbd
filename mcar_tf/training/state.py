"""The progress of a run apart from its variables: epochs, steps and history. Loads no TensorFlow."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from mcar_tf.evaluating.columns import VALIDATION_MAP
from pipelines.words import percent

WAITED_LONG = 0.1  # share of the steps' time from which waiting for pictures is said
JUDGED_BY = VALIDATION_MAP["fused"]  # the column that decides which epoch is the best


@dataclasses.dataclass
class RunState:
    """The progress of a run, apart from its variables.

    Attributes:
        epoch: number of whole epochs done.
        steps: number of steps done in the current epoch.
        history: one row per epoch, as in `history.csv`.
        best: the row with the highest mAP on the validation split.
    """

    epoch: int = 0
    steps: int = 0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best: dict[str, Any] | None = None

    @classmethod
    def read(cls, values: dict[str, Any], where: Path | str) -> "RunState":
        """Read the state that a checkpoint holds.

        Raises:
            ValueError: the values are not such a state; the error names the file and what is wrong.
        """
        rows = values.get("history")
        best = values.get("best")
        for name, right in (
            ("epoch", _is_count(values.get("epoch"))),
            ("steps", _is_count(values.get("steps"))),
            (
                "history",
                isinstance(rows, list) and all(isinstance(row, dict) and "epoch" in row for row in rows),
            ),
            ("best", best is None or (isinstance(best, dict) and {"epoch", JUDGED_BY} <= best.keys())),
        ):
            if not right:
                raise ValueError(f"{where} is damaged: `{name}` can't be {str(values.get(name))[:60]}.")
        return cls(values["epoch"], values["steps"], values["history"], values["best"])

    def add(self, row: dict[str, Any]) -> bool:
        """Close an epoch with its row of the history; return whether it is the best one so far in validation."""
        self.epoch, self.steps = self.epoch + 1, 0
        self.history.append(row)
        better = JUDGED_BY in row and (self.best is None or row[JUDGED_BY] > self.best[JUDGED_BY])
        if better:
            self.best = row
        return better

    def out_of_patience(self, early_stopping_epochs: int) -> bool:
        """Whether the last `early_stopping_epochs` epochs brought no improvement; always False if that is 0."""
        best_epoch = self.best["epoch"] if self.best else 0
        return 0 < early_stopping_epochs <= self.epoch - best_epoch


def epoch_line(row: dict[str, Any], epochs: int, waited: float = 0.0) -> str:
    """One line about an epoch, for people. `waited`: share of its steps' time spent waiting for pictures."""
    parts = [f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}", f"loss {row['loss']:.4f}"]
    if "global_loss" in row:
        local = "not trained yet" if math.isnan(row["local_loss"]) else f"{row['local_loss']:.4f}"
        parts[-1] += f" (global {row['global_loss']:.4f}, local {local})"
    if JUDGED_BY in row:
        parts.append(f"val mAP {percent(row[JUDGED_BY])}")
        if "global_loss" in row:
            of_global, of_local = (percent(row[VALIDATION_MAP[stream]]) for stream in ("global", "local"))
            parts[-1] += f" (global {of_global}, local {of_local})"
    parts.append(f"{row['images_per_second']:.0f} images/s")
    if waited >= WAITED_LONG:
        parts.append(f"waited for pictures {waited:.0%}")
    left = round((epochs - row["epoch"]) * row["seconds"])
    parts.append(f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02} left" if left else "done")
    return "  ".join(parts)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
