"""The options of commands that answer for pictures: the format and what is listed. Loads no TensorFlow."""

import dataclasses

from mcar_tf.evaluating.answer_files import AnswerFormat, check_format
from pipelines.command import option

ANSWERS = "answers"


@dataclasses.dataclass(kw_only=True)
class AnswerOptions:
    """How pictures are answered. A command that writes fewer formats declares `format` again."""

    # fmt: off
    format: AnswerFormat = option("jsonl", "jsonl: one line per image; csv: one line per label; parquet: one row per"
                                           " image.", group=ANSWERS)
    all_classes: bool = option(False, "List every class with its probability, and whether it is predicted.",
                               group=ANSWERS)
    threshold: float | None = option(None, "Smallest probability at which a class is predicted (default: each class's"
                                     " own, as calibrate found it, or 0.6).", group=ANSWERS)
    batch_size: int = option(16, "Images per batch.", group=ANSWERS)
    # fmt: on

    def check_answers(self) -> None:
        """Refuse numbers that are out of range, and a format whose library is not installed.

        Raises:
            ValueError: names the option.
        """
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"`threshold` must lie in [0, 1]. Received: {self.threshold}")
        if self.batch_size < 1:
            raise ValueError(f"`batch-size` must be at least 1. Received: {self.batch_size}")
        check_format(self.format)
