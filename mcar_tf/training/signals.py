"""SIGINT and SIGTERM: finish the step and save while training, leave at once otherwise."""

import contextlib
import signal
import types
from collections.abc import Iterator

from pipelines.command import Terminated


class Stopping:
    """Whether a signal asked to stop, and whether a step can be finished first.

    Attributes:
        requested: whether a signal arrived while `can_wait` was true.
        can_wait: whether the running code will soon check `requested`, so that a signal can wait.
    """

    def __init__(self) -> None:
        self.requested = False
        self.can_wait = False
        self.signum = signal.SIGINT

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside the `with` block, a first signal only sets `requested`; the code inside must check it and leave."""
        self.can_wait = True
        try:
            yield
        finally:
            self.can_wait = False

    def handle(self, signum: int, frame: types.FrameType | None) -> None:
        """Remember the first signal. Leave at once on the second one, or if no code would check `requested`."""
        if self.requested or not self.can_wait:
            self.leave(signum)
        self.requested, self.signum = True, signal.Signals(signum)

    def leave(self, signum: int | None = None) -> None:
        """Raise the exception that ends the command with the signal's exit code."""
        raise KeyboardInterrupt if (signum or self.signum) == signal.SIGINT else Terminated


@contextlib.contextmanager
def stop_between_steps() -> Iterator[Stopping]:
    """Inside a `with` block, a `Stopping` handles both signals."""
    stopping = Stopping()
    before = {s: signal.signal(s, stopping.handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
