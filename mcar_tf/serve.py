"""Serve: `python -m mcar_tf.serve --export DIR`. An export folder in; its answers over HTTP, until it is stopped."""

import contextlib
import dataclasses
import importlib.util
import socket
from collections.abc import Sequence
from pathlib import Path

from mcar_tf.exporting.folder import read_parity
from pipelines.command import load_tensorflow, option, parse_options, run_command
from pipelines.words import spell

NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")

ADDRESS, LIMITS = "what, and where", "limits"


@dataclasses.dataclass
class ServeOptions:
    """The options of `serve`."""

    # fmt: off
    export: Path = option(dataclasses.MISSING, "The export folder, which holds a SavedModel.", group=ADDRESS)
    host: str = option("127.0.0.1", "Address to listen on. 0.0.0.0: every one of this machine's, so that others reach"
                                    " it, too; there is neither a password nor encryption.", group=ADDRESS)
    port: int = option(8501, "Port to listen on (0: any that is free).", group=ADDRESS)
    name: str = option("mcar", "Of the model, in its URLs: /v1/models/NAME.", group=ADDRESS)
    batch_size: int = option(16, "Pictures that the model looks at together, at most.", group=LIMITS)
    most_waiting: int = option(256, "Pictures that may wait for the model; who sends more gets 429.", group=LIMITS)
    most_megabytes: int = option(32, "Of a request; a larger one gets 413.", group=LIMITS)
    timeout: float = option(30.0, "Seconds until an answer; who had none by then gets 504.", group=LIMITS)
    # fmt: on

    def check(self) -> None:
        """Refuse a folder that can't be served, and wrong options, before anything slow happens."""
        for name in ("batch_size", "most_waiting", "most_megabytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{spell(name)}` must be at least 1. Received: {getattr(self, name)}")
        if not 0 < self.timeout < float("inf"):
            raise ValueError(f"`timeout` must be a positive number of seconds. Received: {self.timeout}")
        if not 0 <= self.port <= 65535:
            raise ValueError(f"`port` must lie in [0, 65535]. Received: {self.port}")
        if not self.name.isascii() or not self.name.replace("-", "a").replace("_", "a").isalnum():
            raise ValueError(f"`name` must be of letters, digits, - and _. Received: {self.name!r}")
        read_parity(self.export)
        if any(importlib.util.find_spec(module) is None for module in NEEDED):
            raise ValueError("Serving needs FastAPI and uvicorn: pip install 'mcar-tf[serve]'")


def main(argv: Sequence[str] | None = None) -> None:
    options = parse_options(
        ServeOptions,
        argv,
        module="mcar_tf.serve",
        description="Answer over HTTP as TensorFlow Serving does, with a page to try it on.",
    )
    options.check()
    with listen(options.host, options.port) as door:
        load_tensorflow()
        from mcar_tf.serving.server import serve

        serve(
            options.export,
            door,
            options.name,
            batch_size=options.batch_size,
            most_waiting=options.most_waiting,
            most_bytes=options.most_megabytes * 2**20,
            seconds=options.timeout,
        )


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound but does not accept connections yet.

    Raises:
        ValueError: there is no such address, or the port is already in use.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with contextlib.ExitStack() as failing:
            door = failing.enter_context(socket.socket(family, socket.SOCK_STREAM))
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            door.bind((host, port))
            failing.pop_all()
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
        why = error.strerror if isinstance(error, OSError) else "no such address"
        raise ValueError(f"Nobody can listen at {host}, port {port}: {why}. See --host, --port.") from None
    return door


if __name__ == "__main__":
    run_command(main)
