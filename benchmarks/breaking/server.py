"""An S3 that goes wrong at a chosen request: moto's server, with what breaks it in between.

    python server.py PORT

Requests to buckets are counted from the last `POST /-/arm` on, whose JSON says what happens to those from `first` to
`last`; `GET /-/log` tells each, a line with its number, method and path.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.test import run_wsgi_app

ANSWERS = {
    "503": ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    "403": ("403 Forbidden", "AccessDenied", "Access Denied"),
}


class Breaking:
    """The WSGI application."""

    def __init__(self) -> None:
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.order: dict[str, Any] = {}
        self.log: list[str] = []
        self.lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/-/arm":
            self.order = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            self.log = []
            return _answer(start, "200 OK", b"")
        if path == "/-/log":
            return _answer(start, "200 OK", "\n".join(self.log).encode())
        with self.lock:
            self.log.append(f"{len(self.log) + 1} {environ['REQUEST_METHOD']} {path}")
            number = len(self.log)
        order, way = self.order, self.order.get("way")
        if way is None or not order["first"] <= number <= order["last"]:
            return _pass_on(*run_wsgi_app(self.moto, environ), start)
        if way in ANSWERS:
            status, code, message = ANSWERS[way]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
            return _answer(start, status, text.encode(), ("Content-Type", "application/xml"))
        if way == "killed before":
            return self._end(environ)
        if way == "cut" and environ["REQUEST_METHOD"] != "GET":
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
            return _hang_up(environ)
        answer, status, headers = run_wsgi_app(self.moto, environ, buffered=True)
        if way == "cut":
            body = b"".join(answer)
            start(status, list(headers))
            return _half(body, environ)
        return self._end(environ) if way == "killed after" else _hang_up(environ)

    def _end(self, environ: dict[str, Any]) -> Iterable[bytes]:
        os.kill(self.order["pid"], signal.SIGKILL)
        return _hang_up(environ)


def _answer(start: Any, status: str, body: bytes, *headers: tuple[str, str]) -> list[bytes]:
    start(status, [("Content-Length", str(len(body))), *headers])
    return [body]


def _pass_on(answer: Iterable[bytes], status: str, headers: Any, start: Any) -> Iterable[bytes]:
    start(status, list(headers))
    return answer


def _half(body: bytes, environ: dict[str, Any]) -> Iterable[bytes]:
    yield body[: len(body) // 2]
    _hang_up(environ)


def _hang_up(environ: dict[str, Any]) -> Iterable[bytes]:
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    return []


if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[1]), Breaking(), threaded=True).serve_forever()
