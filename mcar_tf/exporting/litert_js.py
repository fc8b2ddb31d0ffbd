"""LiteRT.js, the runtime of the exported page: its version, source and files. Loads no TensorFlow."""

import json
import shutil
from pathlib import Path

VERSION = "2.5.3"
PACKAGES = ("core", "wasm-utils")
HOST = "https://cdn.jsdelivr.net"  # used by a page that does not carry the runtime itself


def find_litert(folder: Path) -> Path:
    """The folder `node_modules/@litertjs` of an `npm install`.

    Args:
        folder: where npm was run, or its `node_modules`.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has another version than the page was written for.
    """
    wanted = f"npm install @litertjs/core@{VERSION}"
    for place in (folder / "node_modules" / "@litertjs", folder / "@litertjs", folder):
        if all((place / name / "package.json").is_file() for name in PACKAGES):
            break
    else:
        raise FileNotFoundError(f"{folder} holds no LiteRT.js (`--litert`): run `{wanted}` there.")
    version = json.loads((place / "core" / "package.json").read_text(encoding="utf-8")).get("version")
    if version != VERSION:
        raise ValueError(f"{folder} holds LiteRT.js {version}, not {VERSION}: run `{wanted}` there.")
    return place


def copy_litert(folder: Path, target: Path) -> None:
    """Copy the files of LiteRT.js that a page needs; `folder` is as for `find_litert`."""
    unneeded = shutil.ignore_patterns("*.map", "*.d.ts", "*metafile*", "bundle*", "*.md")
    for name in PACKAGES:
        shutil.copytree(find_litert(folder) / name, target / name, ignore=unneeded)


def addresses(place: str, version: str = "") -> dict[str, str]:
    """Names of the modules that the page imports -> their addresses below `place`."""
    return {f"@litertjs/{name}": f"{place}/{name}{version}/dist/index.js" for name in PACKAGES}
