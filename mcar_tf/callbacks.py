"""What happens between two training steps: the progress bar, checkpoints by the clock, stopping, guards."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import keras
from tqdm import tqdm


class ProgressBar(keras.callbacks.Callback):
    """A bar over the steps of an epoch, with images/s, time left and the loss; nothing where no terminal is.

    Args:
        steps: of one epoch.
        batch_size: images a step.
        epochs: of the run, for the bar's title.
    """

    def __init__(self, steps: int, batch_size: int, epochs: int) -> None:
        super().__init__()
        self.steps, self.batch_size, self.epochs = steps, batch_size, epochs
        self.first_step = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draw an empty bar, or one that starts where the epoch is resumed."""
        self.bar = tqdm(
            total=self.steps * self.batch_size,
            initial=self.first_step * self.batch_size,
            desc=f"epoch {epoch + 1}/{self.epochs}",
            unit=" images",
            leave=False,
            file=sys.stderr,
            disable=None,
        )
        self.first_step = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Move on by a batch."""
        self.bar.update(self.batch_size)
        if batch % 10 == 0 and not self.bar.disable and logs:
            self.bar.set_postfix(loss=f"{float(logs['loss']):.4f}", refresh=False)

    def close(self) -> None:
        """Take the bar away: another line follows."""
        self.bar.close()


class ResumedMeans(keras.callbacks.Callback):
    """Keeps the running means of an epoch that is resumed: Keras sets metrics to zero as an epoch begins.

    Args:
        model: whose metrics have been restored.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.values = [variable.numpy() for variable in model.metrics_variables]

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Put the values back."""
        for variable, value in zip(self.model.metrics_variables, self.values, strict=True):
            variable.assign(value)


class StepGuard(keras.callbacks.Callback):
    """After each step: save by the clock, save and stop when asked to, refuse to go on with a loss that is no number.

    Args:
        save: writes a checkpoint; takes the number of steps done in this epoch.
        minutes: between two saves inside an epoch.
        stop_requested: whether to save and leave, asked after each step.
    """

    def __init__(
        self, save: Callable[[int], None], minutes: float, stop_requested: Callable[[], bool]
    ) -> None:
        super().__init__()
        self.save, self.seconds, self.stop_requested = save, 60.0 * minutes, stop_requested
        self.last_saved = time.monotonic()
        self.steps_done = 0  # in this epoch; set before an epoch that is resumed

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """See what the class is for."""
        self.steps_done += 1
        due = time.monotonic() - self.last_saved > self.seconds
        stop = self.stop_requested()
        # The loss is the epoch's running mean: once no number, it stays so, and a look now and then finds it.
        if due or stop or self.steps_done % 50 == 1:
            self._check_loss(logs)
        if due or stop:
            self.save(self.steps_done)
            self.last_saved = time.monotonic()
        if stop:
            raise StopRequestedError

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """The last look at the epoch's loss, before anything is saved."""
        self._check_loss(logs)
        self.steps_done = 0
        self.last_saved = time.monotonic()

    def _check_loss(self, logs: dict[str, Any] | None) -> None:
        loss = float(logs["loss"]) if logs else 0.0
        if not math.isfinite(loss):
            step = int(self.model.optimizer.iterations)
            raise NonFiniteLossError(
                f"the loss became {loss} at or shortly before step {step}. The last checkpoint is good: lower"
                " --learning-rate, or --precision float32 if it was another, and go on with --resume"
                " or start anew with --overwrite."
            )


class StopRequestedError(Exception):
    """A signal asked to stop; the step was finished and saved."""


class NonFiniteLossError(ArithmeticError):
    """Training diverged."""
