"""The asynchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import Any, Self, TypeVar

import httpx2

from markethall_client.errors import checked
from markethall_client.generated.models import GuestTokens, RevocationForm, TokenPair
from markethall_client.generated.operations import revoke_token
from markethall_client.operation import Operation
from markethall_client.pages import Page
from markethall_client.retries import DEFAULT_RETRIES, LOST_CONNECTION, Retries
from markethall_client.tokens import (
    MemoryTokenStorage,
    Tokens,
    TokenStorage,
    authorize,
    is_refused,
    renew,
    sign_in,
    tokens_of,
)

T = TypeVar("T")
PageT = TypeVar("PageT", bound=Page[Any])


class AsyncMarkethall:
    """A client that adds the access token to requests and repeats them where that is safe.

    Tasks may share it. `timeout` is in seconds, for each step of an
    attempt. `options` are those of `httpx2.AsyncClient`, such as `proxy`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token_storage: TokenStorage | None = None,
        retries: Retries = DEFAULT_RETRIES,
        timeout: float = 30,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
        **options: Any,
    ) -> None:
        self._http = httpx2.AsyncClient(base_url=base_url, timeout=timeout, **options)
        self._tokens = token_storage or MemoryTokenStorage()
        self._retries = retries
        self._wait = wait
        self._renewal = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def login(self, username: str, password: str) -> None:
        """Sign in with a user name or an e-mail address. Raises ProblemError."""
        self._tokens.save(tokens_of(await self._call_without_token(sign_in(username, password))))

    def use(self, tokens: TokenPair | GuestTokens) -> None:
        """Use the tokens that an operation has returned, such as `create_guest`, from now on."""
        self._tokens.save(tokens_of(tokens))

    async def logout(self) -> None:
        """Delete the tokens from the storage, and revoke them at the shop. Raises ProblemError."""
        tokens = self._tokens.load()
        if tokens is not None:
            self._tokens.save(None)
            await self._call_without_token(revoke_token(body=RevocationForm(tokens.refresh_token)))

    async def call(self, operation: Operation[T]) -> T:
        """Send the operation and return its parsed response.

        Raises ProblemError, UnexpectedResponseError, httpx2.TransportError.
        """
        return operation.parse(await self.send(operation))

    async def send(self, operation: Operation[Any]) -> httpx2.Response:
        """Send the operation and return the successful response, for its status and headers.

        Raises ProblemError, UnexpectedResponseError, httpx2.TransportError.
        """
        request = self._build(operation)
        tokens = self._tokens.load()
        if tokens is None:
            return checked(await self._send_with_retries(request))
        response = await self._send_with_retries(authorize(request, tokens))
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            renewed = await self._renew(tokens)
            if renewed is not None:
                response = await self._send_with_retries(authorize(request, renewed))
        return checked(response)

    async def pages(self, operation: Operation[PageT]) -> AsyncIterator[PageT]:
        """Iterate over the pages of a list; the next one is requested when it is reached."""
        while True:
            page = await self.call(operation)
            yield page
            if page.next_cursor is None:
                return
            operation = operation.with_cursor(page.next_cursor)

    async def items(self, operation: Operation[Page[T]]) -> AsyncIterator[T]:
        """Iterate over the items of all pages of a list."""
        async for page in self.pages(operation):
            for item in page.items:
                yield item

    def _build(self, operation: Operation[Any]) -> httpx2.Request:
        return self._http.build_request(
            operation.method,
            operation.path,
            params=operation.params,
            headers=operation.headers,
            **operation.body,
        )

    async def _call_without_token(self, operation: Operation[T]) -> T:
        return operation.parse(checked(await self._http.send(self._build(operation))))

    async def _renew(self, expired: Tokens) -> Tokens | None:
        """Renew the tokens once for all tasks. Return None if the session has ended."""
        async with self._renewal:
            stored = self._tokens.load()
            if stored != expired:
                return stored
            operation = renew(expired)
            response = await self._http.send(self._build(operation))
            pair = None if is_refused(response) else operation.parse(checked(response))
            renewed = None if pair is None else tokens_of(pair)
            self._tokens.save(renewed)
            return renewed

    async def _send_with_retries(self, request: httpx2.Request) -> httpx2.Response:
        for retry in range(self._retries.allowed_for(request)):
            response = await self._send_unless_lost(request)
            seconds = self._retries.wait_before_retry(response, retry)
            if response is not None and seconds is None:
                return response
            await self._wait(seconds or 0)
        return await self._http.send(request)

    async def _send_unless_lost(self, request: httpx2.Request) -> httpx2.Response | None:
        try:
            return await self._http.send(request)
        except LOST_CONNECTION:
            return None
