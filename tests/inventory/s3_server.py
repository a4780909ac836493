"""A small S3 server for tests: objects of one bucket, in memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET: Final = "images"
ACCESS_KEY_ID: Final = "tester"
# the maximum number of keys per page: small, so that lists have several pages
_PAGE_LENGTH: Final = 3


class S3Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        # the status of all answers, if it is set
        self.failure = 0
        self.is_silent = False
        self.released = threading.Event()
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: S3Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the name in the base class
        """Write nothing to stderr."""

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self._is_accepted():
            self.server.objects[self._name] = body, datetime.now(UTC)
            self._answer(200, etag='"1"')

    def do_GET(self) -> None:
        if not self._is_accepted():
            return
        if self._query.get("list-type") == ["2"]:
            self._answer(200, self._page())
        elif self._name not in self.server.objects:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            body, stored_at = self.server.objects[self._name]
            date = format_datetime(stored_at, usegmt=True)
            self._answer(200, body, etag='"1"', last_modified=date)

    def do_DELETE(self) -> None:
        if self._is_accepted():
            self.server.objects.pop(self._name, None)
            self._answer(204)

    @property
    def _query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    @property
    def _name(self) -> str:
        """The name of the object: the path without the bucket."""
        return unquote(urlsplit(self.path).path).removeprefix(f"/{BUCKET}/")

    def _is_accepted(self) -> bool:
        """Answer with an error, and return False, if the request is not signed or must fail."""
        self.server.requests.append(f"{self.command} {self._name}")
        if self.server.is_silent:
            self.server.released.wait()
            self.close_connection = True
            return False
        authorization = self.headers.get("authorization", "")
        if not authorization.startswith(f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY_ID}/"):
            self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
            return False
        if self.server.failure:
            self._answer(self.server.failure, b"<Error><Code>Failure</Code></Error>")
            return False
        return True

    def _page(self) -> bytes:
        (prefix,) = self._query.get("prefix", [""])
        (after,) = self._query.get("continuation-token", [""])
        names = sorted(n for n in self.server.objects if n.startswith(prefix) and n > after)
        page = names[:_PAGE_LENGTH]
        is_truncated = len(names) > _PAGE_LENGTH
        token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if is_truncated else ""
        entries = "".join(self._entry(name) for name in page)
        return (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult>'
            f"<Name>{BUCKET}</Name><KeyCount>{len(page)}</KeyCount>"
            f"<IsTruncated>{str(is_truncated).lower()}</IsTruncated>{token}{entries}"
            "</ListBucketResult>"
        ).encode()

    def _entry(self, name: str) -> str:
        body, stored_at = self.server.objects[name]
        date = stored_at.strftime("%Y-%m-%dT%H:%M:%S.000Z")
        return (
            f"<Contents><Key>{escape(name)}</Key><LastModified>{date}</LastModified>"
            f"<ETag>1</ETag><Size>{len(body)}</Size></Contents>"
        )

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    server = S3Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
