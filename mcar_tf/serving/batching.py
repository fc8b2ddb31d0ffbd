"""Batch the questions of many clients: those that wait at the same time are computed together."""

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import numpy as np
import numpy.typing as npt

# Name of an input or output -> array, whose first dimension is the rows.
Tensors = dict[str, npt.NDArray[Any]]


class QueueFullError(Exception):
    """As many rows are waiting as are allowed."""


@dataclasses.dataclass(eq=False)
class _Question:
    signature: str
    inputs: Tensors
    answer: "Future[Tensors]"

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))

    def fits(self, other: "_Question") -> bool:
        """Whether both can be in one batch: the same signature, and rows of the same shape."""
        return self.signature == other.signature and all(
            value.shape[1:] == other.inputs[name].shape[1:] for name, value in self.inputs.items()
        )


class Batcher:
    """Calls a model in a separate thread, with all the rows that are waiting, up to `batch_size` at a time.

    No question waits for a batch to fill: those that arrive while the model computes form the next batch.

    Args:
        run: (signature, inputs) -> outputs, row for row.
        batch_size: the largest number of rows at a time.
        most_waiting: the largest number of waiting rows; more are refused.
        note: called with the number of rows of each computed batch, and the seconds that it took.
    """

    def __init__(
        self,
        run: Callable[[str, Tensors], Tensors],
        batch_size: int,
        most_waiting: int,
        note: Callable[[int, float], None] = lambda rows, seconds: None,
    ) -> None:
        self._run, self._batch_size, self._most_waiting, self._note = run, batch_size, most_waiting, note
        self._waiting: collections.deque[_Question] = collections.deque()
        self._changed = threading.Condition()
        self._open = True
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Number of rows that are waiting."""
        with self._changed:
            return sum(question.rows for question in self._waiting)

    def ask(self, signature: str, inputs: Tensors) -> "list[Future[Tensors]]":
        """Queue a question; its rows are computed in parts of at most `batch_size`.

        Args:
            signature: a signature of the model.
            inputs: by name, all with the same number of rows, at least one.

        Returns:
            The answers to the parts, in order. A cancelled one is not computed.

        Raises:
            QueueFullError: too many rows are waiting; none of the question's rows is computed.
        """
        rows = len(next(iter(inputs.values())))
        questions = [
            _Question(signature, {name: value[start:end] for name, value in inputs.items()}, Future())
            for start, end in _parts(rows, self._batch_size)
        ]
        with self._changed:
            self._waiting = collections.deque(q for q in self._waiting if not q.answer.cancelled())
            if sum(question.rows for question in self._waiting) + rows > self._most_waiting:
                raise QueueFullError
            self._waiting.extend(questions)
            self._changed.notify()
        return [question.answer for question in questions]

    def close(self) -> None:
        """Answer the questions that are waiting, then end the thread."""
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            if not self._answer(batch) and len(batch) > 1:
                for question in batch:  # one of them is at fault, and must not affect the others
                    self._answer([question])

    def _next_batch(self) -> list[_Question]:
        """The questions to compute next; empty once all are answered and the batcher is closed."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or not self._open)
                batch: list[_Question] = []
                kept: list[_Question] = []
                room = self._batch_size
                for question in self._waiting:
                    if question.rows > room or (batch and not batch[0].fits(question)):
                        kept.append(question)
                    elif question.answer.set_running_or_notify_cancel():
                        batch.append(question)
                        room -= question.rows
                self._waiting = collections.deque(kept)
                if batch or not (self._waiting or self._open):
                    return batch

    def _answer(self, batch: list[_Question]) -> bool:
        """Compute a batch; return whether that succeeded. A single question gets the error as its answer."""
        names = batch[0].inputs
        started = time.perf_counter()
        try:
            inputs = {name: np.concatenate([question.inputs[name] for question in batch]) for name in names}
            outputs = self._run(batch[0].signature, inputs)
        except Exception as error:  # any error becomes the answer to this question
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
            return False
        self._note(sum(question.rows for question in batch), time.perf_counter() - started)
        start = 0
        for question in batch:
            end = start + question.rows
            question.answer.set_result({name: value[start:end] for name, value in outputs.items()})
            start = end
        return True


def _parts(rows: int, most: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + most, rows)) for start in range(0, rows, most))
