"""What is held for all clients together has a limit, and nobody may keep a place without asking for anything."""

import asyncio
import contextlib
import socket

import pytest

from mcar_tf.serving.guard import MOST_BODIES, Guard


class Request:
    """A request with a body of 100 bytes, and the status of its answer."""

    def __init__(self, guard):
        self.guard, self.status = guard, None

    async def __call__(self):
        await self.guard({"type": "http", "headers": []}, self.receive, self.send)
        return self.status

    async def receive(self):
        return {"type": "http.request", "body": b"x" * 100, "more_body": False}

    async def send(self, message):
        self.status = message.get("status", self.status)


def test_bodies_are_limited_together_and_make_room_again():
    async def ask():
        release = asyncio.Event()

        async def app(scope, receive, send):
            await receive()
            await release.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})

        guard = Guard(app, most_bytes=100, seconds=20)
        waiting = [asyncio.create_task(Request(guard)()) for _ in range(MOST_BODIES)]
        await asyncio.sleep(0)
        crowded = await Request(guard)()
        release.set()
        return crowded, await asyncio.gather(*waiting), await Request(guard)()

    assert asyncio.run(ask()) == (429, [200] * MOST_BODIES, 200)


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTT"])
def test_a_connection_that_asks_for_nothing_is_closed(monkeypatch, sent):
    connections = pytest.importorskip("mcar_tf.serving.connections")
    import uvicorn

    monkeypatch.setattr(connections.Connection, "patience", 0.2)

    async def app(scope, receive, send):
        await asyncio.sleep(1)  # longer than a silent client may take
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def ask(address):
        silent = await asyncio.open_connection(*address)
        honest = await asyncio.open_connection(*address)
        silent[1].write(sent)
        honest[1].write(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
        async with asyncio.timeout(20):
            answers = await silent[0].read(), await honest[0].readline()
        for _, writer in (silent, honest):
            writer.close()
        return answers

    async def serve():
        config = uvicorn.Config(
            app, http=connections.Connection, ws="none", lifespan="off", log_level="error"
        )
        server = uvicorn.Server(config)
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as door:
            task = asyncio.create_task(server.serve([door]))
            answers = await ask(door.getsockname())
            server.should_exit = True
            await task
        return answers

    assert asyncio.run(serve()) == (b"", b"HTTP/1.1 204 No Content\r\n")


def test_a_client_that_hangs_up_is_no_error_of_ours(make_client, capsys):
    app = make_client().app
    messages = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]
    statuses = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        statuses.append(message.get("status"))

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/models/mcar:predict",
        "headers": [],
        "query_string": b"",
    }
    asyncio.run(app(scope, receive, send))
    assert statuses[0] == 499
    assert capsys.readouterr().err == ""
