"""Idempotency-Key for routes (draft-ietf-httpapi-idempotency-key-header)."""

import json
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel

from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.problem_details import PROBLEM_MEDIA_TYPE
from markethall.shared.idempotency.records import (
    IdempotencyKeyInvalid,
    IdempotencyKeyMissing,
    IdempotentCommand,
    IdempotentRequest,
    StoredResponse,
)
from markethall.shared.idempotency.service import IdempotencyService
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.etags import etag
from markethall.shared.kernel.ids import new_id

D = TypeVar("D", bound=BaseModel)

IDEMPOTENCY_RETENTION_DEFAULT: Final = timedelta(days=1)
IDEMPOTENCY_RETENTION_EXTENDED: Final = timedelta(days=30)

_KEY_PATTERN: Final = re.compile(r'"([\x21\x23-\x7e]{1,255})"|([\x21\x23-\x7e]{1,255})')


def ok_response(dto: BaseModel) -> StoredResponse:
    """Return a 200 with the DTO."""
    return StoredResponse(status=200, body=dto.model_dump_json())


def created_response(path: Callable[[Any], str]) -> Callable[[Any], StoredResponse]:
    """Return a function that builds a 201 from a DTO.

    The response has the Location of the new resource, and an ETag if the DTO has a version.
    """

    def to_response(dto: BaseModel) -> StoredResponse:
        version = getattr(dto, "version", None)
        tag = None if version is None else etag(version)
        return StoredResponse(status=201, body=dto.model_dump_json(), location=path(dto), etag=tag)

    return to_response


def accepted_response(path: Callable[[Any], str]) -> Callable[[Any], StoredResponse]:
    """Return a function that builds a 202 with the Location of the started job."""

    def to_response(dto: BaseModel) -> StoredResponse:
        return StoredResponse(status=202, body=dto.model_dump_json(), location=path(dto))

    return to_response


class IdempotencyRunner:
    """Runs the command of one request once per Idempotency-Key.

    A repeated key gets the stored response. Both methods raise IdempotencyKeyInvalid, InFlight,
    PayloadMismatch, and the errors of the command.
    """

    def __init__(
        self,
        request: Request,
        service: IdempotencyService,
        retention: timedelta = IDEMPOTENCY_RETENTION_DEFAULT,
    ) -> None:
        self._request = request
        self._service = service
        self._retention = retention

    async def run(
        self,
        ctx: CallContext,
        body: BaseModel | None,
        command: Callable[[IdempotentCommand], Awaitable[D]],
        to_response: Callable[[Any], StoredResponse] = ok_response,
        retention: timedelta = IDEMPOTENCY_RETENTION_DEFAULT,
    ) -> Response:
        """Run the command. Without a key, every request runs it."""
        key = _read_key(self._request)
        if key is None:
            attempt = IdempotentCommand("", new_id(), retention, to_response)
            return _to_http_response(attempt.build_response(await command(attempt)))
        return await self._run_once(key, ctx, body, command, to_response, retention)

    async def run_with_key(
        self,
        ctx: CallContext,
        body: BaseModel | None,
        command: Callable[[IdempotentCommand], Awaitable[D]],
        to_response: Callable[[Any], StoredResponse] = ok_response,
    ) -> Response:
        """Run a command that moves stock or money. Raises IdempotencyKeyMissing without a key.

        The response is stored for IDEMPOTENCY_RETENTION_EXTENDED.
        """
        key = _read_key(self._request)
        if key is None:
            raise IdempotencyKeyMissing
        return await self._run_once(
            key, ctx, body, command, to_response, IDEMPOTENCY_RETENTION_EXTENDED
        )

    async def _run_once(
        self,
        key: str,
        ctx: CallContext,
        body: BaseModel | None,
        command: Callable[[IdempotentCommand], Awaitable[D]],
        to_response: Callable[[Any], StoredResponse],
        retention: timedelta,
    ) -> Response:
        idempotent_request = IdempotentRequest(
            principal=_principal(self._request, ctx),
            method=self._request.method,
            # lower case, because a UUID in capital letters names the same resource
            path=self._request.scope["path"].lower().rstrip("/"),
            key=key,
            payload=body.model_dump(mode="json") if body else None,
        )
        stored_response, is_replay = await self._service.run(
            idempotent_request, retention, to_response, command
        )
        return (
            _replay_response(self._request, stored_response)
            if is_replay
            else _to_http_response(stored_response)
        )


class _Services(Protocol):
    def idempotency(self) -> IdempotencyService: ...


def idempotency_runner(
    context: str, retention: timedelta = IDEMPOTENCY_RETENTION_DEFAULT
) -> Callable[[Request], Awaitable[IdempotencyRunner]]:
    """Return a FastAPI dependency: the runner, with the idempotency records of this context.

    `retention` is the time for which `run` stores a response.
    """
    from_context: FromContext[_Services] = FromContext(context)
    find_service = from_context(lambda container: container.idempotency())

    async def resolve(request: Request) -> IdempotencyRunner:
        return IdempotencyRunner(request, await find_service(request), retention)

    return resolve


async def require_idempotency_key(request: Request) -> None:
    """Refuse a request without a valid Idempotency-Key before other headers are read.

    For routes that can also refuse another header. Raises IdempotencyKeyMissing,
    IdempotencyKeyInvalid.
    """
    if _read_key(request) is None:
        raise IdempotencyKeyMissing


def _read_key(request: Request) -> str | None:
    header = request.headers.get("idempotency-key")
    if header is None:
        return None
    match = _KEY_PATTERN.fullmatch(header)
    if not match:
        raise IdempotencyKeyInvalid
    return match[1] or match[2]


def _principal(request: Request, ctx: CallContext) -> str:
    """Return the owner of the key. The key of an anonymous client belongs to its IP address."""
    if ctx.actor.is_authenticated:
        return ctx.actor.audit_name
    return f"{ctx.actor.audit_name} {request.scope['state'].get('client_ip', '')}"


def _to_http_response(stored_response: StoredResponse) -> Response:
    optional_headers = {"location": stored_response.location, "etag": stored_response.etag}
    headers = {name: value for name, value in optional_headers.items() if value is not None}
    return Response(
        stored_response.body.encode(), stored_response.status, headers, stored_response.content_type
    )


def _replay_response(request: Request, stored_response: StoredResponse) -> Response:
    """Return the stored response.

    A stored error is raised again, so that `problem_handler` adds the headers of this request.
    """
    request.scope["state"]["is_idempotent_replay"] = True
    if stored_response.content_type == PROBLEM_MEDIA_TYPE:
        stored = json.loads(stored_response.body)
        raise DomainError.by_code[stored["code"]](stored["detail"], **stored["details"])
    response = _to_http_response(stored_response)
    response.headers["idempotency-replayed"] = "true"
    return response
