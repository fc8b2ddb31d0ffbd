"""Make the files of the page. The same page works with the model in the browser and with a server."""

import base64
import hashlib
import html
import json
import string
from collections.abc import Mapping
from importlib import resources
from typing import Any

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "json": "application/json",
}
PAGE_HEADERS = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Cache-Control": "no-cache"}


def page_files(
    settings: Mapping[str, Any], imports: Mapping[str, str] | None = None, host: str = ""
) -> dict[str, tuple[bytes, str]]:
    """A page's files: name -> content and media type.

    The page's content security policy lets the browser contact only the page's own server and `host`.

    Args:
        settings: `engine` ("server" or "litert"), `name`, `labels`, `thresholds`, and what else the engine needs.
        imports: names of third-party modules -> their addresses.
        host: the host of these modules, if not the page's own server.
    """
    unused = "server.js" if settings["engine"] == "litert" else "litert.js"
    folder = resources.files("mcar_tf.exporting") / "page"
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.name != unused}
    files["settings.json"] = json.dumps(dict(settings), ensure_ascii=False, indent=1).encode()
    files["index.html"] = _fill(files["index.html"].decode(), settings["name"], imports or {}, host)
    return {name: (content, MEDIA_TYPES[name.rpartition(".")[2]]) for name, content in sorted(files.items())}


def _fill(page: str, title: str, imports: Mapping[str, str], host: str) -> bytes:
    table = json.dumps({"imports": dict(imports)})
    scripts = ["'self'", "'wasm-unsafe-eval'", host]
    if imports:
        digest = base64.b64encode(hashlib.sha256(table.encode()).digest()).decode()
        scripts.append(f"'sha256-{digest}'")
    policy = {
        "default-src": "'none'",
        "script-src": " ".join(filter(None, scripts)),
        "style-src": "'self'",
        "img-src": "'self' blob:",
        "media-src": "'self' blob:",
        "connect-src": f"'self' {host}".strip(),
        "worker-src": "'self' blob:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    filled = string.Template(page).substitute(
        title=html.escape(title),
        policy="; ".join(f"{name} {value}" for name, value in policy.items()),
        imports=f'<script type="importmap">{table}</script>' if imports else "",
    )
    return filled.encode()
