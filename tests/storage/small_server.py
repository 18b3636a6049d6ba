"""A small S3 of one bucket, which a test can make answer wrongly, and which notes what it was asked."""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

EMPTY = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


class Fault(NamedTuple):
    """An answer instead of the right one; with `status` 0 none comes."""

    status: int
    code: str = ""

    @property
    def body(self) -> bytes:
        return (
            f"<Error><Code>{self.code}</Code><Message>said the server</Message></Error>".encode() if self.code else b""
        )


class SmallServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.objects: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.signed_by: set[str] = set()
        self.fault: Fault | None = None
        self.faulty = {"GET", "HEAD", "PUT"}
        self.halves: float = 0
        """So many of the next answers end in their middle."""
        self.conditions = "known"
        """Or `ignored`, or `refused`."""


@contextmanager
def serving() -> Iterator[SmallServer]:
    server = SmallServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def with_tls(server: HTTPServer, folder: Path) -> Path:
    """Have a server speak TLS; the file of the certificate, which nobody has signed."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "here")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
    made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key").write_bytes(key.private_bytes(serialization.Encoding.PEM, *plain))
    (folder / "cert").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert", folder / "key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return folder / "cert"


class _Handler(BaseHTTPRequestHandler):
    server: SmallServer
    protocol_version = "HTTP/1.1"

    def _answer(self, status: int, body: bytes = b"", e_tag: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-amz-bucket-region", "eu-south-2")
        self.send_header("Last-Modified", self.date_time_string())
        if e_tag:
            self.send_header("ETag", e_tag)
        self.end_headers()
        if self.command != "HEAD":
            self.close_connection = self.server.halves > 0
            self.server.halves -= 1  # before whoever asked knows
            self.wfile.write(body[: len(body) // 2] if self.close_connection else body)

    def _do(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        key = unquote(parts.path).lstrip("/").partition("/")[2]
        server = self.server
        server.asked.append((self.command, key))
        if signed := re.search(r"Credential=([^/]*)/", self.headers.get("Authorization") or ""):
            server.signed_by.add(signed[1])
        if (fault := server.fault) and self.command in server.faulty:
            if not fault.status:
                time.sleep(3)
                self.close_connection = True
                return
            self._answer(fault.status, fault.body)
            return
        found = server.objects.get(key)
        tag = found is not None and f'"{hashlib.md5(found).hexdigest()}"'
        if self.command == "PUT":
            never, only = self.headers.get("If-None-Match"), self.headers.get("If-Match")
            if (never or only) and server.conditions == "refused":
                self._answer(501, Fault(501, "NotImplemented").body)
            elif server.conditions == "known" and ((never and tag) or (only and tag != only)):
                self._answer(412, Fault(412, "PreconditionFailed").body)
            else:
                server.objects[key] = content
                self._answer(200, e_tag=f'"{hashlib.md5(content).hexdigest()}"')
        elif not key:
            self._answer(200, EMPTY)
        elif found is None or not tag:
            self._answer(404, Fault(404, "NoSuchKey").body)
        else:
            self._answer(200, found, tag)

    do_GET = do_HEAD = do_PUT = _do  # noqa: N815

    def log_message(self, format: str, *arguments: object) -> None:
        pass
