"""A hub on this machine: what huggingface_hub asks Hugging Face's hub for, over real HTTP.

As there, small files are sent at once and named by git's checksum of them; weights stand behind a
redirect to another address, are named by their SHA-256, and can be asked for in parts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

LARGE = (".safetensors", ".bin")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Hub:
    """What the server has and how it fails; change it between requests as you like.

    Attributes:
        models: files by name, by ``OWNER/NAME``.
        gated: models that need permission.
        broken_after: close the connection after so many bytes of weights, as often as
            ``breaks`` says.
        stalled_after: send so many bytes of weights and then no more until the client has gone,
            once; 0 for never.
        ignores_range: send all of a file whatever part of it is asked for.
        spoil: weights arrive with one byte changed.
        surplus: bytes by which the announced size of weights is too large.
        status: answer everything with this.
        requests: method, path and range of each request.
        sent: bytes of weights, in all.
    """

    url: str = ""
    models: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    broken_after: int = 0
    breaks: int = 0
    stalled_after: int = 0
    ignores_range: bool = False
    spoil: bool = False
    surplus: int = 0
    status: int = 0
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    sent: int = 0

    def commit(self, model: str) -> str:
        """Changes with the content."""
        files = sorted(self.models[model].items())
        return git_sha1(repr([(name, sha256(content)) for name, content in files]).encode())

    def downloads(self, suffix: str) -> list[str | None]:
        """The ranges of all GET requests for files of a suffix, through redirects."""
        return [
            part
            for method, path, part in self.requests
            if method == "GET" and path.endswith(suffix) and "/cdn/" in path
        ]


@contextmanager
def serving() -> Iterator[Hub]:
    """A running hub; its address is ``url``."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: Hub

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        hub = self.state
        hub.requests.append((self.command, self.path, self.headers["Range"]))
        if hub.status:
            self._send(hub.status, {})
        elif match := re.fullmatch(r"/cdn/([^/]+/[^/]+)/(.+)", self.path):
            self._send_weights(hub.models[match[1]][match[2]])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path):
            self._resolve(*match.groups())
        else:
            self._send(404, {})

    def _resolve(self, model: str, revision: str, file: str) -> None:
        hub = self.state
        if model not in hub.models:
            self._send(401, {"X-Error-Code": "RepoNotFound"})
            return
        if model in hub.gated:
            self._send(401, {"X-Error-Code": "GatedRepo"})
            return
        commit = hub.commit(model)
        if revision not in ("main", commit):
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
            return
        headers = {"X-Repo-Commit": commit}
        if file not in hub.models[model]:
            self._send(404, headers | {"X-Error-Code": "EntryNotFound"})
            return
        content = hub.models[model][file]
        if not file.endswith(LARGE):
            self._send(200, headers | {"ETag": f'"{git_sha1(content)}"'}, content)
            return
        # To another host: what a redirect inside the hub says is not read.
        headers["Location"] = f"{hub.url.replace('127.0.0.1', 'localhost')}/cdn/{model}/{file}"
        headers["X-Linked-Etag"] = f'"{sha256(content)}"'
        headers["X-Linked-Size"] = str(len(content) + hub.surplus)
        self._send(302, headers)

    def _send_weights(self, content: bytes) -> None:
        hub = self.state
        status, headers = 200, {"ETag": f'"{sha256(content)}"', "Accept-Ranges": "bytes"}
        if hub.spoil:
            content = content[:-1] + bytes([content[-1] ^ 1])
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")
        if asked and not hub.ignores_range:
            start, size = int(asked[1]), len(content)
            content = content[start:]
            status, headers["Content-Range"] = 206, f"bytes {start}-{size - 1}/{size}"
            if not content:
                status, headers["Content-Range"] = 416, f"bytes */{size}"
        self._send(status, headers, content)

    def _send(self, status: int, headers: dict[str, str], content: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        hub = self.state
        if "/cdn/" not in self.path:
            self.wfile.write(content)
            return
        if hub.breaks:
            hub.breaks -= 1
            content = content[: hub.broken_after]
            self.close_connection = True
        stalls = bool(hub.stalled_after)
        if stalls:
            content, hub.stalled_after = content[: hub.stalled_after], 0
            self.close_connection = True
        hub.sent += len(content)
        self.wfile.write(content)
        if stalls:
            self.rfile.read(1)  # nothing comes but the end
