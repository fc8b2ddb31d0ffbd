"""Whether this process trains a run alone or as one of several workers. Loads no TensorFlow.

All that depends on this is decided here: the strategy, which process writes the run folder, and which one obeys a
signal.
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
        """The folder that this process writes to, inside a `with` block."""
        return contextlib.nullcontext(run_dir)

    def connect(self, kind: str, sync_batch_norm: bool) -> "tf.distribute.Strategy":
        """The strategy. It is made only once: a second one would clash with the first one's collective operations."""
        if self.strategy is None:
            self.strategy = self._make_strategy(kind, sync_batch_norm)
        return self.strategy

    def agree(self, about: dict[str, Any]) -> None:
        """Check that all workers were started in the same way; alone there is nothing to check."""

    def share(self, variables: "Sequence[keras.Variable]", state: Any) -> Any:
        """Copy the leading worker's variables to all workers, and return its state, which must be JSON."""
        return state

    def losing_others(self, stopping: Stopping) -> AbstractContextManager[None]:
        """Inside a `with` block, report in one line that another worker is gone."""
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
        # Only the chief decides when to stop: a worker that left earlier would break the chief's step.
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
    """How this process takes part in training, from the option `strategy`.

    Raises:
        ValueError: several workers are asked for, but the environment does not describe them.
    """
    return SeveralWorkers() if strategy == "multi_worker" else OneProcess()
