"""A file in, the same file damaged in one of many ways out: by accident, by hand, or on purpose."""

import json
import os
from pathlib import Path

import numpy as np

VALUES = (None, True, -1, 0, 7, 1e308, 2**40, 2**70, "", "x", "../../x", "\x1b[31m", [], {}, [[]], {"a": 1})
WORDS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "!!python/object/apply:os.system ['true']",
    "&a [*a]",
    "{",
    "\0",
)
LARGE = 200  # characters of a list or a text that is repeated


def corrupt(path: Path, rng: np.random.Generator) -> str:
    """Damage a file; what was done, in words."""
    content = path.read_bytes()
    ways = [flip_bits, cut_off, insert_bytes, empty, lose_part, become_other, fill_with_noise]
    if path.suffix in (".json", ".yaml", ".txt", ".csv"):
        ways += [change_value, change_value, change_value, swap_lines, repeat_line, nest_deeply, bomb]
    way = ways[rng.integers(len(ways))]
    changed = way(content, rng, path)
    if changed is not None:
        path.write_bytes(changed)
    return way.__name__


def flip_bits(content: bytes, rng: np.random.Generator, path: Path) -> bytes:
    changed = bytearray(content)
    for place in rng.integers(0, len(changed), rng.integers(1, 4)):
        changed[place] ^= 1 << rng.integers(8)
    return bytes(changed)


def cut_off(content: bytes, rng: np.random.Generator, path: Path) -> bytes:
    return content[: rng.integers(len(content))]


def insert_bytes(content: bytes, rng: np.random.Generator, path: Path) -> bytes:
    place = rng.integers(len(content))
    return content[:place] + rng.bytes(rng.integers(1, 20)) + content[place:]


def empty(content: bytes, rng: np.random.Generator, path: Path) -> bytes:
    return b""


def lose_part(content: bytes, rng: np.random.Generator, path: Path) -> bytes:
    start, end = np.sort(rng.integers(0, len(content) + 1, 2))
    return content[:start] + content[end:]


def fill_with_noise(content: bytes, rng: np.random.Generator, path: Path) -> bytes:
    return rng.bytes(rng.integers(1, 2000))


def become_other(content: bytes, rng: np.random.Generator, path: Path) -> None:
    """A folder, a link that leads nowhere or to itself, or gigabytes of zeros that take no room."""
    path.unlink()
    kind = rng.integers(4)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        path.symlink_to(path)
    elif kind == 2:
        path.symlink_to(path.with_name("nowhere"))
    else:
        path.touch()
        os.truncate(path, 3 * 10**9)


def change_value(content: bytes, rng: np.random.Generator, path: Path) -> bytes:
    """Another value in one place: in JSON of any type, elsewhere behind a colon or comma or as a line."""
    if path.suffix == ".json":
        tree = json.loads(content)
        places = list(containers(tree))
        holder = places[rng.integers(len(places))]
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = keys[rng.integers(len(keys))]
        kind = rng.integers(4)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            return json.dumps(tree).replace(json.dumps(holder[key]), str(rng.choice(WORDS)), 1).encode()
        else:
            holder[key] = VALUES[rng.integers(len(VALUES))]
        return json.dumps(tree).encode()
    lines = content.decode().split("\n")
    row = rng.integers(len(lines))
    value = VALUES[rng.integers(len(VALUES))] if rng.integers(2) else rng.choice(WORDS)
    before, mark, _ = lines[row].partition(":" if path.suffix == ".yaml" else ",")
    lines[row] = f"{before}{mark} {value}" if mark else str(value)
    return "\n".join(lines).encode()


def containers(tree: object):
    """Every object and list in a JSON value that holds something."""
    if isinstance(tree, dict | list) and tree:
        yield tree
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from containers(value)


def swap_lines(content: bytes, rng: np.random.Generator, path: Path) -> bytes:
    lines = content.split(b"\n")
    one, other = rng.integers(0, len(lines), 2)
    lines[one], lines[other] = lines[other], lines[one]
    return b"\n".join(lines)


def repeat_line(content: bytes, rng: np.random.Generator, path: Path) -> bytes:
    lines = content.split(b"\n")
    row = rng.integers(len(lines))
    return b"\n".join(lines[:row] + [lines[row]] * LARGE + lines[row:])


def nest_deeply(content: bytes, rng: np.random.Generator, path: Path) -> bytes:
    return b"[" * 100_000 if rng.integers(2) else b'{"a":' * 100_000


def bomb(content: bytes, rng: np.random.Generator, path: Path) -> bytes:
    """YAML whose aliases stand for a billion values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    return "\n".join(lines).encode()
