"""Reads the body of a request, after routing and authorization, if its route takes a body."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Final

from fastapi import Request
from starlette.types import Message, Receive

from markethall.shared.http.card_number_check import check_json
from markethall.shared.http.gateway_config import GatewayConfig
from markethall.shared.http.request_body import (
    BodyBudget,
    LimitedBodyStream,
    normalize_form,
    read_body,
    validate_json,
)
from markethall.shared.http.request_context import RequestContext
from markethall.shared.http.route_policies import (
    DEFAULT_BODY_LIMITS,
    CardCheck,
    RoutePolicy,
    find_policy,
)
from markethall.shared.kernel.errors import (
    BodyTooLarge,
    CardNumberRefused,
    RequestTimeout,
    UnsupportedMediaType,
)

_JSON_TYPE: Final = re.compile(
    rb"application/(?:json|[a-z.-]+\+json)\s*(?:;\s*charset=\"?utf-?8\"?\s*)?", re.IGNORECASE
)
_FORM_TYPE: Final = re.compile(
    rb"application/x-www-form-urlencoded\s*(?:;\s*charset=\"?utf-?8\"?\s*)?", re.IGNORECASE
)


class BodyReader:
    """An ASGI `receive`. Its first call checks the policy of the route, then reads the body.

    It reads most bodies completely, validates them and calls `on_body` with them. It returns the
    bodies of streaming routes in chunks. FastAPI calls `receive` only for routes that take a body.
    Raises Unauthenticated, Forbidden, BodyTooLarge, RequestTimeout, Overloaded,
    UnsupportedMediaType, CardNumberRefused and the errors of parsing.
    """

    def __init__(
        self,
        request: RequestContext,
        receive: Receive,
        config: GatewayConfig,
        budget: BodyBudget,
        on_body: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._request = request
        self._receive = receive
        self._config = config
        self._share = budget.open_share()
        self._on_body = on_body
        self._rest: Receive | None = None

    async def __call__(self) -> Message:
        try:
            return await self._receive_checked()
        except CardNumberRefused as error:
            self._request.log_card_number(error)
            raise

    async def _receive_checked(self) -> Message:
        if self._rest is not None:
            return await self._rest()
        policy = find_policy(self._request.scope)
        if policy is not None:
            await policy(Request(self._request.scope))
        if limit := self._streaming_limit():
            card_check = CardCheck() if policy is None else policy.card_check
            self._rest = self._stream(limit, card_check)
            return await self._rest()
        body = await self._read(policy)
        await self._on_body(body)
        self._rest = self._receive
        return {"type": "http.request", "body": body, "more_body": False}

    def close(self) -> None:
        """Return the bytes of this body to the budget."""
        self._share.close()

    @property
    def _path(self) -> str:
        path: str = self._request.scope["path"]
        return path.rstrip("/")

    def _streaming_limit(self) -> int | None:
        is_post = self._request.method == "POST"
        return self._config.streaming_body_limits.get(self._path) if is_post else None

    def _stream(self, limit: int, card_check: CardCheck) -> Receive:
        self._check_declared_length(limit)
        return LimitedBodyStream(
            self._receive,
            limit,
            self._config.body_timeout_seconds,
            self._close_connection,
            self._share,
            checks_card_numbers=card_check.is_enabled,
        )

    async def _read(self, policy: RoutePolicy | None) -> bytes:
        limits = DEFAULT_BODY_LIMITS if policy is None else policy.body_limits
        max_bytes = min(limits.max_bytes, self._config.max_body_bytes)
        self._check_declared_length(max_bytes)
        try:
            async with asyncio.timeout(self._config.body_timeout_seconds):
                body = await read_body(self._receive, max_bytes, self._share)
        except TimeoutError:
            # the connection is closed, because the rest of the body would arrive just as slowly
            self._close_connection()
            raise RequestTimeout from None
        return self._validate(body, policy, limits.max_members) if body else body

    def _check_declared_length(self, limit: int) -> None:
        if self._request.content_length > limit:
            raise BodyTooLarge(limit=limit)

    def _validate(self, body: bytes, policy: RoutePolicy | None, max_members: int) -> bytes:
        content_type = self._request.header(b"content-type")
        if self._path in self._config.form_paths:
            if not _FORM_TYPE.fullmatch(content_type):
                raise UnsupportedMediaType(supported=["application/x-www-form-urlencoded"])
            return normalize_form(body)
        if not _JSON_TYPE.fullmatch(content_type):
            raise UnsupportedMediaType(supported=["application/json"])
        value = validate_json(body, max_members)
        check = CardCheck() if policy is None else policy.card_check
        # public routes have checked the data in a body of the internal API
        if check.is_enabled and not self._request.is_internal:
            check_json(body, value, check.unchecked_fields)
        return body

    def _close_connection(self) -> None:
        self._request.extra_headers.append((b"connection", b"close"))
