"""Serve an export folder on a bound socket until a signal comes; requests being handled still get answers."""

import socket
from pathlib import Path

import uvicorn
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

from mcar_tf.serving.app import make_app
from mcar_tf.serving.batching import Batcher
from mcar_tf.serving.connections import Connection
from mcar_tf.serving.served_model import ServedModel, load_served_model

MOST_CONNECTIONS = 1024


def serve(
    folder: Path,
    door: socket.socket,
    name: str,
    *,
    batch_size: int,
    most_waiting: int,
    most_bytes: int,
    seconds: float,
) -> None:
    """Serve until SIGTERM or SIGINT. The arguments are those of `Batcher` and `make_app`.

    Raises:
        FileNotFoundError, ValueError: see `load_served_model`; another program has begun to listen at the port.
    """
    print(f"loading {folder} ...", flush=True)
    model = load_served_model(folder)
    server, batcher = make_server(
        model, name, batch_size=batch_size, most_waiting=most_waiting, most_bytes=most_bytes, seconds=seconds
    )
    host, port = door.getsockname()[:2]
    try:
        door.listen()  # from here on clients wait for uvicorn, instead of being refused
    except OSError as error:  # two programs may be bound to a port; the first one that listens has it
        raise ValueError(f"Nobody can listen at {host}, port {port}: {error.strerror}. See --port.") from None
    print(f"thresholds: {model.decision}")
    print(
        f"listening at http://{f'[{host}]' if ':' in host else host}:{port} (model: /v1/models/{name})",
        flush=True,
    )
    try:
        server.run(sockets=[door])
    finally:
        batcher.close()


def make_server(
    model: ServedModel, name: str, *, batch_size: int, most_waiting: int, most_bytes: int, seconds: float
) -> tuple[uvicorn.Server, Batcher]:
    """A server that is ready to run, and its batcher, which is to be closed after it."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)  # memory and processor time, on Linux
    pictures = Counter("mcar_pictures", "Pictures that the model looked at.", registry=registry)
    computing = Counter("mcar_model_seconds", "Seconds that the model computed.", registry=registry)
    sizes = Histogram(
        "mcar_batch_pictures", "Pictures a batch.", buckets=[1, 2, 4, 8, 16, 32, 64], registry=registry
    )

    def note(rows: int, took: float) -> None:
        pictures.inc(rows)
        computing.inc(took)
        sizes.observe(rows)

    batcher = Batcher(model.run, batch_size, most_waiting, note)
    app = make_app(model, batcher, name, registry=registry, most_bytes=most_bytes, seconds=seconds)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        access_log=False,
        log_level="error",
        log_config=None,  # uvicorn's would close the handlers that others have set up, and with them their streams
        lifespan="off",
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=round(seconds) + 1,  # nobody waits longer for an answer
    )
    return uvicorn.Server(config), batcher
