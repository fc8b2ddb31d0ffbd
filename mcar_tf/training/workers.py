"""Who trains a run: this process alone, or several workers of which it is one. Loads no TensorFlow.

What follows of it is asked here and nowhere else: the strategy, who writes the run folder, who answers a signal.
"""

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcar_tf.training import multi_worker
from mcar_tf.training.signals import Stopping

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class OneProcess:
    """This process trains alone, on one device or on several.

    Attributes:
        several: whether there are other workers.
        leads: whether this process writes the run folder and decides when all stop.
    """

    several = False
    leads = True

    def __init__(self) -> None:
        self.strategy: tf.distribute.Strategy | None = None

    def folder(self, run_dir: Path) -> AbstractContextManager[Path]:
        """Where this process writes, inside a `with` block."""
        return contextlib.nullcontext(run_dir)

    def connect(self, kind: str, sync_batch_norm: bool) -> "tf.distribute.Strategy":
        """The strategy: always the same one, since a second would meet the first one's collective operations."""
        if self.strategy is None:
            self.strategy = self._make_strategy(kind, sync_batch_norm)
        return self.strategy

    def agree(self, about: dict[str, Any]) -> None:
        """See that all workers were started alike."""

    def share(self, variables: "Sequence[keras.Variable]", state: Any) -> Any:
        """Give all workers the variables of the one that leads; returns its state, which must be JSON."""
        return state

    def losing_others(self, stopping: Stopping) -> AbstractContextManager[None]:
        """Say in one line, inside a `with` block, that another worker is gone."""
        return contextlib.nullcontext()

    def _make_strategy(self, kind: str, sync_batch_norm: bool) -> "tf.distribute.Strategy":
        from mcar_tf.training.devices import make_strategy

        return make_strategy(kind, sync_batch_norm)


class SeveralWorkers(OneProcess):
    """This process is one of several workers; see `multi_worker`."""

    several = True

    def __init__(self) -> None:
        super().__init__()
        self.worker = multi_worker.read_worker()
        # Who left before the chief would break the chief's step.
        self.leads = self.worker.index == 0

    def folder(self, run_dir: Path) -> AbstractContextManager[Path]:
        return multi_worker.own_folder(self.worker, run_dir)

    def agree(self, about: dict[str, Any]) -> None:
        multi_worker.agree(self.strategy, about)

    def share(self, variables: "Sequence[keras.Variable]", state: Any) -> Any:
        return multi_worker.as_on_the_chief(self.strategy, variables, state)

    def losing_others(self, stopping: Stopping) -> AbstractContextManager[None]:
        return multi_worker.losing_workers(stopping)

    def _make_strategy(self, kind: str, sync_batch_norm: bool) -> "tf.distribute.Strategy":
        return multi_worker.make_multi_worker_strategy()


def find_workers(strategy: str) -> OneProcess:
    """This process among those that train a run together, by the option `strategy`.

    Raises:
        ValueError: several workers are asked for, and the environment does not say which.
    """
    return SeveralWorkers() if strategy == "multi_worker" else OneProcess()
