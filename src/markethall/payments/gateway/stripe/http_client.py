"""The HTTP client of Stripe's SDK, over httpx2.

The SDK's own asynchronous clients need packages that this project does not use.
"""

import ssl
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, NoReturn

import httpx2
import stripe

# a fallback for callers without a timeout; the timeout of `ProviderLimits` is shorter
_TIMEOUT_SECONDS: Final = 30
# httpx2 raises AttributeError or OSError if a connection is reset while httpx2 checks it
_CONNECTION_ERRORS: Final = (httpx2.HTTPError, OSError, AttributeError)


class Httpx2Client(stripe.HTTPClient):
    """Sends one request, without retries: the reconciliation job of payments retries."""

    name = "httpx2"

    def __init__(self) -> None:
        super().__init__()
        # trust_env=False ignores proxies and .netrc of the environment
        self._client = httpx2.AsyncClient(
            timeout=_TIMEOUT_SECONDS, verify=_tls_context(), trust_env=False
        )

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: str | None = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        try:
            response = await self._client.request(method, url, headers=headers, content=post_data)
        except _CONNECTION_ERRORS as error:
            _raise_connection_error(error)
        return response.content, response.status_code, response.headers

    async def request_stream_async(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("the gateway reads whole responses, never streams")

    async def sleep_async(self, secs: float) -> NoReturn:
        raise NotImplementedError("the SDK makes no retries: max_network_retries is 0")

    async def close_async(self) -> None:
        await self._client.aclose()


@cache
def _tls_context() -> ssl.SSLContext:
    """Return the TLS context of all clients, because reading the certificates takes 20 ms."""
    # trust_env=False ignores certificate bundles of the environment
    return httpx2.create_ssl_context(trust_env=False)


def _raise_connection_error(error: Exception) -> NoReturn:
    # the text of the error is left out: it may contain the URL
    raise stripe.APIConnectionError(type(error).__name__) from error
