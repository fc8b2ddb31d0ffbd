"""Ask a server from many clients at once, some of them hostile, and tell what they got and how soon.

    python examples/serve_load.py --url http://127.0.0.1:8501/v1/models/mcar photos/*.jpg

Needs nothing but Python, and a running `mcar_tf.serve`. Each client asks for one picture after the other, without a
pause, and compares every answer with the one that the picture got before the load: another picture's answer would be
noticed. A share of the requests is hostile: no JSON, no picture, too large, or cut off.

Ends with an error if an honest request got no answer or a wrong one, or a hostile one what it should not get.
"""

import argparse
import base64
import collections
import contextlib
import http.client
import json
import random
import re
import sys
import threading
import time
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROUNDING = 1e-4  # the last digits of an answer depend on the pictures that are computed with it
MOST_PICTURES = 64
PATIENCE = 300  # seconds to wait for an answer; the server gives up much sooner
MEMORY, PROCESSOR = "process_resident_memory_bytes", "process_cpu_seconds_total"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", type=Path, nargs="+", help=f"files, of which {MOST_PICTURES} are used")
    parser.add_argument("--url", required=True, help="of the model: http://HOST:8501/v1/models/NAME")
    parser.add_argument("--clients", type=int, default=64, help="that ask at the same time (64)")
    parser.add_argument("--seconds", type=float, default=300, help="how long they ask (300)")
    parser.add_argument("--hostile", type=float, default=0.05, help="share of hostile requests (0.05)")
    parser.add_argument("--most-megabytes", type=int, default=32, help="as the server's option says (32)")
    options = parser.parse_args()
    try:
        bodies = [make_body(path.read_bytes()) for path in options.pictures[:MOST_PICTURES]]
        load = Load(options.url, bodies, make_hostile(bodies[0], options.most_megabytes), options.hostile)
        load.run(options.clients, options.seconds)
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.exit(f"error: {error}")
    print("\n".join(load.tell()))
    if load.wrong:
        sys.exit(f"error: {len(load.wrong)} answers were not right: {'; '.join(load.wrong[:3])}")


def make_body(picture: bytes) -> bytes:
    """The body of a predict request for one file."""
    return json.dumps({"instances": [{"b64": base64.b64encode(picture).decode()}]}).encode()


def make_hostile(body: bytes, most_megabytes: int) -> list[tuple[bytes, set[int]]]:
    """Bodies that nobody should send, and the statuses that are right for each; none for one that is cut off."""
    return [
        (b"", {400}),
        (b"[" * 100_000, {400}),
        (random.Random(0).randbytes(5000), {400}),
        (b'{"instances": []}', {400}),
        (b'{"instances": [{"b64": "!"}]}', {400}),
        (b'{"signature_name": "serve_tensor", "instances": [[[[1, 2, NaN]]]]}', {400}),
        (make_body(b"no picture"), {200}),  # `valid` is false, as TensorFlow Serving answers
        (b" " * (most_megabytes * 2**20 + 1), {413}),
        (body, set()),
    ]


class Load:
    """Clients that ask a server, and what they got.

    Args:
        url: of the model.
        bodies: honest requests.
        hostile: the others, each with the statuses that are right.
        share: of hostile requests.
    """

    def __init__(
        self, url: str, bodies: Sequence[bytes], hostile: Sequence[tuple[bytes, set[int]]], share: float
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        self.host, self.path = parts.netloc, f"{parts.path}:predict"
        self.bodies, self.hostile, self.share = bodies, hostile, share
        self.answers: list[float] = []  # seconds until each
        self.statuses: collections.Counter[int | str] = collections.Counter()  # of hostile requests
        self.wrong: list[str] = []
        self.metrics: list[dict[str, float]] = []  # from before the load to its end
        self.lock = threading.Lock()

    def run(self, clients: int, seconds: float) -> None:
        """Ask for each picture alone, then from many clients for some seconds."""
        with contextlib.closing(self.connect()) as connection:
            self.expected = [read_probs(*ask(connection, self.path, body)) for body in self.bodies]
        threads = [threading.Thread(target=self.work, args=(k,), daemon=True) for k in range(clients)]
        self.metrics.append(self.read_metrics())
        self.started = time.monotonic()
        self.ends = self.started + seconds
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(max(seconds / 20, 0.1))
                self.metrics.append(self.read_metrics())
        self.took = time.monotonic() - self.started

    def work(self, number: int) -> None:
        """Be one client."""
        chance = random.Random(number)
        with contextlib.closing(self.connect()) as connection:
            while time.monotonic() < self.ends:
                if chance.random() < self.share:
                    self.attack(connection, *chance.choice(self.hostile))
                else:
                    self.ask_honestly(connection, chance.randrange(len(self.bodies)))

    def ask_honestly(self, connection: http.client.HTTPConnection, number: int) -> None:
        started = time.monotonic()
        try:
            probs = read_probs(*ask(connection, self.path, self.bodies[number]))
            wrong = "" if is_same(probs, self.expected[number]) else f"picture {number} got another's answer"
        except (OSError, ValueError, http.client.HTTPException) as error:
            connection.close()
            wrong = f"picture {number}: {error!r}"
        with self.lock:
            self.answers.append(time.monotonic() - started)
            self.wrong += [wrong] if wrong else []

    def attack(self, connection: http.client.HTTPConnection, body: bytes, right: set[int]) -> None:
        status: int | str = "cut off"
        try:
            if right:
                status, _ = ask(connection, self.path, body)
            else:
                connection.close()
                connection.putrequest("POST", self.path)
                connection.putheader("Content-Length", str(len(body)))
                connection.endheaders(body[: len(body) // 2])
        except (OSError, http.client.HTTPException):
            status = "disconnected"  # a busy server does not read a large body to its end
        if not isinstance(status, int):
            connection.close()
        with self.lock:
            self.statuses[status] += 1
            if isinstance(status, int) and status not in right:
                self.wrong.append(f"{body[:60]!r} got {status}")

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.host, timeout=PATIENCE)

    def read_metrics(self) -> dict[str, float]:
        """The server's metrics that have no labels."""
        with contextlib.closing(self.connect()) as connection:
            connection.request("GET", "/metrics")
            lines = re.findall(r"^(\w+) (\S+)$", connection.getresponse().read().decode(), re.MULTILINE)
        return {name: float(value) for name, value in lines}

    def tell(self) -> list[str]:
        """What the clients got, in words."""
        times = sorted(self.answers) or [0.0]
        median, most = (times[round(share * (len(times) - 1))] for share in (0.5, 0.99))
        first, last = self.metrics[0], self.metrics[-1]
        grew = {name: last[name] - first[name] for name in first}
        pictures, busy = grew["mcar_pictures_total"], grew["mcar_model_seconds_total"]
        statuses = ", ".join(
            f"{count} x {status}" for status, count in sorted(self.statuses.items(), key=str)
        )
        lines = [
            f"{len(self.answers):,} answers in {self.took:.0f} s: {len(self.answers) / self.took:.1f} a second;"
            f" wrong or none: {len(self.wrong)}",
            f"seconds to an answer: median {median:.2f}, 99 % within {most:.2f}, all within {times[-1]:.2f}",
            f"hostile requests: {statuses or 'none'}",
            f"the model computed {busy / self.took:.0%} of the time,"
            f" {pictures / max(busy, 1e-9):.1f} pictures a second",
        ]
        if MEMORY in last:  # Linux only
            quarter = self.metrics[len(self.metrics) // 4][MEMORY]
            lines += [
                f"the server's memory: {first[MEMORY] / 2**20:.0f} MiB before, {quarter / 2**20:.0f} after a quarter,"
                f" {last[MEMORY] / 2**20:.0f} at the end",
                f"its processor time: {1000 * grew[PROCESSOR] / max(pictures, 1):.0f} ms a picture",
            ]
        return lines


def ask(connection: http.client.HTTPConnection, path: str, body: bytes) -> tuple[int, bytes]:
    """Post a body; the status and the content of the answer."""
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()


def read_probs(status: int, content: bytes) -> list[float]:
    """The first look's probabilities in an answer; those of both looks jump where rounding moves a box.

    Raises:
        ValueError: the status is not 200.
    """
    if status != 200:
        raise ValueError(f"status {status}: {content[:200]!r}")
    answer: dict[str, Any] = json.loads(content)["predictions"][0]
    return answer["global_probs"]


def is_same(probs: Sequence[float], others: Sequence[float]) -> bool:
    return all(abs(one - other) <= ROUNDING for one, other in zip(probs, others, strict=True))


if __name__ == "__main__":
    main()
