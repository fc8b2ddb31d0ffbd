"""SIGINT and SIGTERM: finish the step and save while training, leave at once otherwise."""

import contextlib
import signal
import types
from collections.abc import Iterator

from pipelines.command import Terminated


class Stopping:
    """Whether someone asked to stop, and whether there is a step to finish first.

    Attributes:
        requested: a signal arrived while `can_wait`.
        can_wait: whether someone is about to ask.
    """

    def __init__(self) -> None:
        self.requested = False
        self.can_wait = False
        self.signum = signal.SIGINT

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside the `with` block a first signal waits: who is inside asks for `requested`, and leaves."""
        self.can_wait = True
        try:
            yield
        finally:
            self.can_wait = False

    def handle(self, signum: int, frame: types.FrameType | None) -> None:
        """Remember the first signal; leave at once at the second, or if nobody would ask."""
        if self.requested or not self.can_wait:
            self.leave(signum)
        self.requested, self.signum = True, signal.Signals(signum)

    def leave(self, signum: int | None = None) -> None:
        """Raise what ends the command with the signal's exit code."""
        raise KeyboardInterrupt if (signum or self.signum) == signal.SIGINT else Terminated


@contextlib.contextmanager
def stop_between_steps() -> Iterator[Stopping]:
    """Handle both signals by a `Stopping` inside a `with` block."""
    stopping = Stopping()
    before = {s: signal.signal(s, stopping.handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
