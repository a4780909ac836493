"""A transport of httpx2 that sends requests with aiohttp (docs/decisions/0044)."""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import aiohttp
import httpx2

# headers that aiohttp would add; httpx2 has already added the ones that the caller wants
_UNWANTED_HEADERS: Final = ("accept", "accept-encoding", "content-type", "user-agent")


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends requests on connections of its pool, without redirects and cookies.

    A POST is sent once; a GET once more if the server has just closed the connection. The timeouts
    are those of the request. Raises the errors of httpx2.
    """

    def __init__(self, max_connections: int, keepalive_seconds: float, *, is_tls: bool) -> None:
        self._max_connections = max_connections
        self._keepalive_seconds = keepalive_seconds
        self._is_tls = is_tls
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        # created here, because aiohttp needs the running event loop
        session = self._session = self._session or self._open_session()
        body = await request.aread()
        with _httpx2_errors(request):
            response = await session.request(
                request.method,
                str(request.url),
                headers=request.headers.multi_items(),
                data=body or None,
                allow_redirects=False,
                timeout=_timeout(request.extensions.get("timeout", {})),
            )
        return httpx2.Response(
            response.status,
            headers=response.raw_headers,
            stream=_ResponseBody(request, response),
            request=request,
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._max_connections,
            keepalive_timeout=self._keepalive_seconds,
            # the certificates that httpx2 trusts; created only if needed, because it is large
            ssl=httpx2.create_ssl_context(trust_env=False) if self._is_tls else True,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_UNWANTED_HEADERS,
            # httpx2 decompresses
            auto_decompress=False,
        )


class _ResponseBody(httpx2.AsyncByteStream):
    def __init__(self, request: httpx2.Request, response: aiohttp.ClientResponse) -> None:
        self._request = request
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _httpx2_errors(self._request):
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        # returns the connection to the pool if the body has been read, and closes it otherwise
        self._response.release()


def _timeout(seconds: Mapping[str, Any]) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(
        total=None,
        connect=seconds.get("pool"),
        sock_connect=seconds.get("connect"),
        sock_read=seconds.get("read"),
    )


@contextmanager
def _httpx2_errors(request: httpx2.Request) -> Iterator[None]:
    """Raise the errors of httpx2 instead of those of aiohttp."""
    try:
        yield
    except aiohttp.ClientConnectorError as error:
        raise httpx2.ConnectError(str(error), request=request) from error
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx2.ConnectTimeout(str(error), request=request) from error
    except TimeoutError as error:
        raise httpx2.ReadTimeout(str(error), request=request) from error
    except aiohttp.ClientOSError as error:
        raise httpx2.ReadError(str(error), request=request) from error
    except aiohttp.ClientError as error:
        # the server disconnected, or its response is malformed
        raise httpx2.RemoteProtocolError(str(error), request=request) from error
