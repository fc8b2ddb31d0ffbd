"""Guard an ASGI application against overload, crashes, and errors that give away its internals."""

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mcar_tf.serving.rest import RefusedError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

# Of a body that is too large, this much is read and discarded first: a client reads no answer while it is sending.
DRAINED_BYTES, DRAINED_SECONDS = 256 * 2**20, 5
MOST_BODIES = 16  # of the largest size, or as many bytes in more bodies, are held at a time

TOO_MUCH = "Too much waits already. Ask again later, or send less."


class Guard:
    """Limits the bytes of a request's body, of all bodies together, and the seconds until an answer, including the
    time to read the body.

    An error inside the application becomes status 500 and one line on standard error (with `MCAR_TF_TRACEBACK=1` the
    whole traceback).

    Args:
        app: the application; its answers are passed on unchanged.
        most_bytes: the largest body, in bytes.
        seconds: the longest time from the request's first line to the end of its answer.
    """

    def __init__(self, app: App, most_bytes: int, seconds: float) -> None:
        self._app, self._most_bytes, self._seconds = app, most_bytes, seconds
        self._held = 0  # bytes of the bodies that are being read or answered

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken, started = 0, False
        too_large = RefusedError(413, f"The body has more than {self._most_bytes / 2**20:g} MiB.")

        async def take() -> Message:
            nonlocal taken
            message = await receive()
            size = len(message.get("body", b""))
            taken += size
            self._held += size
            crowded = self._held > MOST_BODIES * self._most_bytes
            if crowded or taken > self._most_bytes:
                if message.get("more_body"):
                    await _drain(receive)
                raise RefusedError(429, TOO_MUCH) if crowded else too_large
            return message

        async def give(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            headers = dict(scope["headers"])
            length = headers.get(b"content-length", b"0")
            if length.isdigit() and int(length) > self._most_bytes:
                if b"expect" not in headers:  # otherwise the client waits for our consent before it sends
                    await _drain(receive)
                raise too_large
            async with asyncio.timeout(self._seconds):
                await self._app(scope, take, give)
        except RefusedError as error:
            problem: tuple[int, str] | None = error.status, error.line
        except TimeoutError:
            problem = 504, f"There was no answer within {self._seconds:g} seconds."
        except Exception as error:  # the last handler: the server must go on
            print(
                f"internal error: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
                file=sys.stderr,
            )
            if os.environ.get("MCAR_TF_TRACEBACK") == "1":
                traceback.print_exc()
            problem = 500, "internal error"
        else:
            problem = None
        finally:
            self._held -= taken
        if problem and not started:
            await _answer(give, *problem)


async def _answer(send: Send, status: int, line: str) -> None:
    body = json.dumps({"error": line}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send(
        {"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]}
    )
    await send({"type": "http.response.body", "body": body})


async def _drain(receive: Receive) -> None:
    """Read and discard what a client is still sending."""
    left = DRAINED_BYTES
    try:
        async with asyncio.timeout(DRAINED_SECONDS):
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body"):
                    return
    except TimeoutError:
        return
