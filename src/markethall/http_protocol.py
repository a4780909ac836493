"""uvicorn's HTTP protocol with limits of time and size for the request headers.

uvicorn has no such limits, so a client could occupy a connection by sending one byte per minute, or
fill the memory with endless headers. It also writes the headers and the body of a response one by
one, each with a system call and in a packet of its own; here, one write sends both.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# twice the limit of the gateway, which answers with a problem document; only headers that are much
# too large get the bare response below
MAX_HEADER_BYTES: Final = 64 * 1024
HEADER_TIMEOUT_SECONDS: Final = 10.0
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


# Beyond this size, writes are not joined. So a fast stream notices that its client reads slowly.
_MAX_JOINED_BYTES: Final = 64 * 1024


class ServerConfig(uvicorn.Config):
    header_timeout_seconds = HEADER_TIMEOUT_SECONDS


class JoiningTransport(asyncio.Transport):
    """A transport that joins the writes of one iteration of the event loop.

    It has the methods that uvicorn calls. `flush` sends the waiting bytes at once.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(bytes(data))
        self._size += len(data)
        if self._size > _MAX_JOINED_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()
            self._size = 0

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        self._parts.clear()
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()


class HttpProtocol(HttpToolsProtocol):
    """Closes a connection whose request headers take too long or are too large.

    It ignores trailer fields, because RFC 9110, section 6.5.1, forbids merging fields such as
    Authorization into the headers. An error response is sent after the responses in progress;
    otherwise a client would read it as a part of them.
    """

    _in_header = True
    _in_body = False
    # Bytes received since the request began, or since the latest part of its body. These bytes are
    # headers, chunk sizes or trailers.
    _header_bytes = 0
    _has_body_part = False
    _header_timeout_handle: asyncio.TimerHandle | None = None
    # called after the responses in progress; sends an error response or closes the connection
    _rejection: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        self._joining_transport = JoiningTransport(transport, self.loop)
        super().connection_made(self._joining_transport)
        self._start_header_timeout()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timeout()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._in_header = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_header = False
        self._in_body = True
        self._header_bytes = 0
        # an event stream calls this if its client does not read
        self.scope["state"]["abort_connection"] = self.transport.abort
        super().on_headers_complete()
        # a list for the trailer fields; the application has the list of the headers
        self.headers = []

    def on_body(self, body: bytes) -> None:
        self._has_body_part = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._joining_transport.flush()
        if self._rejection is not None and not self._is_answering():
            self._rejection()

    def data_received(self, data: bytes) -> None:
        if self._rejection is not None:
            return
        self._has_body_part = False
        super().data_received(data)
        # the second condition is for the rest of a rejected body, which arrives while no response
        # is in progress
        if self._in_header or not self._is_answering():
            self._start_header_timeout()
        else:
            self._stop_header_timeout()
        self._limit_header(len(data))

    def send_400_response(self, msg: str) -> None:
        self._reject(lambda: super(HttpProtocol, self).send_400_response(msg))

    def _limit_header(self, more: int) -> None:
        if self._has_body_part:
            self._header_bytes = 0
        elif self._in_header or self._in_body:
            self._header_bytes += more
        if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self._reject(self._send_too_large)

    def _send_too_large(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def _reject(self, send_error: Callable[[], None]) -> None:
        """Send the error response, after the responses in progress if there are any."""
        cycle = self.cycle
        if not self._is_answering():
            send_error()
        elif not cycle.more_body:
            # the request that is being answered is complete, so the error is in the next request
            self._rejection = send_error
        elif cycle.response_started or self.pipeline:
            # A response has begun, or an earlier request of this connection still waits for its
            # response. The client would read an error as that response, so the connection is closed
            # after the responses in progress.
            self._rejection = self.transport.close
        else:
            send_error()

    def _start_header_timeout(self) -> None:
        """Start the timeout, unless it is running; further bytes do not extend it."""
        if self._header_timeout_handle is None:
            config = self.config
            seconds = (
                config.header_timeout_seconds
                if isinstance(config, ServerConfig)
                else HEADER_TIMEOUT_SECONDS
            )
            self._header_timeout_handle = self.loop.call_later(seconds, self._on_header_timeout)

    def _stop_header_timeout(self) -> None:
        if self._header_timeout_handle is not None:
            self._header_timeout_handle.cancel()
            self._header_timeout_handle = None

    def _on_header_timeout(self) -> None:
        self._header_timeout_handle = None
        if self._is_answering():
            self._start_header_timeout()
        elif not self.transport.is_closing():
            self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete
