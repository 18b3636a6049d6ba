"""The live report over HTTP, for this machine alone: a server that only answers who knows its address, and only reads.

It listens on the loopback, which a tunnel of SSH reaches too. The random token in the address keeps other users of the
machine out; the checks of Host and Origin keep out what other pages in the user's browser send.
"""

from __future__ import annotations

import gzip
import hmac
import json
import re
import secrets
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from arat_ray.report import page
from arat_ray.report.live import Live

LOOPBACK = "127.0.0.1"
HOSTS = {LOOPBACK, "localhost"}
IDLE_S = 60.0
"""How long a connection is kept on which nothing is asked."""
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"{page.policy(is_served=True)}; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Server(ThreadingHTTPServer):
    """Of a live report, on a port that is free where it is 0. OSError where it is taken."""

    daemon_threads = True

    def __init__(self, live: Live, port: int = 0) -> None:
        self.live, self.token = live, secrets.token_urlsafe(16)
        super().__init__((LOOPBACK, port), _Handler)

    @property
    def address(self) -> str:
        return f"http://{LOOPBACK}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no error; a bug is told, and the next request is answered."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S

    def do_GET(self) -> None:
        """The page, or what is new in it."""
        if not self._may_ask():
            self._answer(HTTPStatus.FORBIDDEN, b"This is not the address that arat-ray watch printed.\n")
            return
        asked = urlsplit(self.path)
        name = asked.path.removeprefix(f"/{self.server.token}/")
        if name == "":
            view, version = self.server.live.whole()
            self._answer(HTTPStatus.OK, page.filled(view, version=version), "text/html; charset=utf-8")
        elif name == "view":
            since = re.fullmatch(r"since=([0-9]{1,9})", asked.query)
            news = self.server.live.since(int(since[1]) if since else 0)
            if news is None:
                self._answer(HTTPStatus.NO_CONTENT)
            else:
                self._answer(HTTPStatus.OK, json.dumps(news, allow_nan=False).encode(), "application/json")
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"There is nothing here.\n")

    def _may_ask(self) -> bool:
        """Whether the request knows the token, names this machine, and comes from no other page."""
        token = self.path.lstrip("/").partition("/")[0]
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        return (
            hmac.compare_digest(token.encode(), self.server.token.encode())
            and host.partition(":")[0] in HOSTS
            and origin in (None, f"http://{host}")
        )

    def _answer(self, status: HTTPStatus, content: bytes = b"", kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if "gzip" in self.headers.get("Accept-Encoding", "") and len(content) > 1000:
            content = gzip.compress(content, 6)
            self.send_header("Content-Encoding", "gzip")
        if status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def version_string(self) -> str:
        return "arat-ray"

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""
