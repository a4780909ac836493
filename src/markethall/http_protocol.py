"""uvicorn's HTTP protocol with limits of time and size for the request headers.

uvicorn has no such limits, so a client could occupy a connection by sending one byte per minute, or
fill the memory with endless headers.
"""

import asyncio
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# twice the limit of the gateway: between the two limits a client gets a problem document
MAX_HEADER_BYTES: Final = 64 * 1024
HEADER_TIMEOUT_SECONDS: Final = 10.0
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


class ServerConfig(uvicorn.Config):
    header_timeout_seconds = HEADER_TIMEOUT_SECONDS


class HttpProtocol(HttpToolsProtocol):
    """Closes a connection whose request headers take too long or are too large."""

    _in_header = True
    _header_bytes = 0
    _header_timeout_handle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn
        super().connection_made(transport)
        self._start_header_timeout()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_header_timeout()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        self._in_header = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_header = False
        self._header_bytes = 0
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # if there is no response in progress, the data is the rest of a rejected body
        if self._in_header or not self._is_answering():
            self._start_header_timeout()
            self._limit_header(len(data))
        else:
            self._stop_header_timeout()

    def _limit_header(self, more: int) -> None:
        self._header_bytes += more if self._in_header else 0
        if self._header_bytes > MAX_HEADER_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

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
