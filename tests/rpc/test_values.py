"""Test that every contract method passes arguments, results and errors unchanged."""

import inspect
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from structlog.testing import capture_logs

from markethall.contexts import topology
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.errors import (
    DomainError,
    InternalError,
    RouteNotFound,
    Unauthenticated,
    Unavailable,
)
from markethall.shared.kernel.model import Dto
from markethall.shared.rpc.server import ServiceRoutePolicy
from tests.rpc.contracts import CONTRACTS, METHODS, SYSTEM, RecordingService, methods_of
from tests.rpc.probe_contract import CTX, error_of
from tests.rpc_loopback import guard_of, over_rpc

DETAILS = {
    "lines": [{"product_id": "p", "requested": 3, "available": None}, {}],
    "status": None,
    "amount": {"amount": -(10**15), "currency": "EUR"},
    "text": '日本 "quoted" \\ \n',
    "errors": [{"field": "/lines/0", "code": "missing", "message": "is missing"}],
    "retry_after": 7,
}
_IMMUTABLE = (str, int, UUID, datetime, type(None))
# maps an error of the callee to the error that the RPC client raises instead
TRANSLATED_ERRORS = {Unauthenticated: Unavailable, RouteNotFound: Unavailable}


@asynccontextmanager
async def local_and_remote(context: str, provider: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Yield two clients of the contract with call guards: one calls in process, one over HTTP."""
    contract = CONTRACTS[context]
    connection = over_rpc(context, contract.router, provider, contract.remote)
    async with connection as remote:
        yield (
            contract.guarded(provider, guard_of(context)),
            contract.guarded(remote, guard_of(context)),
        )


def error_cases() -> Iterator[tuple[str, str, type[DomainError]]]:
    """Yield (context, method, error) for each documented error of each method.

    The errors that any call may raise are tested with one method of each context.
    """
    for context, method in METHODS:
        documented = CONTRACTS[context].documented_errors(method)
        yield from (
            (context, method, kind) for kind in sorted(documented, key=lambda kind: kind.code)
        )
    for context in CONTRACTS:
        method = next(iter(CONTRACTS[context].samples))
        yield from ((context, method, kind) for kind in SYSTEM)


def error_fields(error: DomainError) -> tuple[Any, ...]:
    return (
        type(error),
        error.detail,
        error.details,
        error.status,
        error.retry_after,
        error.is_deterministic,
    )


@pytest.mark.parametrize(("context", "method"), METHODS)
async def test_arguments_and_results_round_trip(context: str, method: str) -> None:
    provider = RecordingService(CONTRACTS[context])
    argument, result = CONTRACTS[context].samples[method]

    async with local_and_remote(context, provider) as clients:
        results = [await getattr(client, method)(CTX, argument) for client in clients]

    local, remote_result = provider.calls
    assert results == [result, result]
    assert (local[0], local[2]) == (remote_result[0], remote_result[2]) == (method, argument)
    assert (
        _without_deadline(local[1]) == _without_deadline(remote_result[1]) == _without_deadline(CTX)
    )


@pytest.mark.parametrize(("context", "method", "kind"), list(error_cases()))
async def test_domain_error_is_same_local_and_remote(
    context: str, method: str, kind: type[DomainError]
) -> None:
    provider = RecordingService(CONTRACTS[context], kind("In these words: é.", **DETAILS))
    argument, _ = CONTRACTS[context].samples[method]

    async with local_and_remote(context, provider) as clients:
        local, remote_result = [
            await error_of(getattr(client, method)(CTX, argument)) for client in clients
        ]

    assert error_fields(local) == (
        kind,
        "In these words: é.",
        DETAILS,
        kind.status,
        *error_fields(local)[4:],
    )
    if kind in TRANSLATED_ERRORS:
        assert error_fields(remote_result) == error_fields(
            TRANSLATED_ERRORS[kind](dependency=context)
        )
    else:
        assert error_fields(remote_result) == error_fields(local)


@pytest.mark.parametrize(("context", "method"), METHODS)
async def test_internal_error_is_same_local_and_remote(context: str, method: str) -> None:
    provider = RecordingService(CONTRACTS[context], RuntimeError("a secret"))
    argument, _ = CONTRACTS[context].samples[method]

    with capture_logs() as lines:
        async with local_and_remote(context, provider) as clients:
            local, remote_result = [
                await error_of(getattr(client, method)(CTX, argument)) for client in clients
            ]

    assert (
        error_fields(local)
        == error_fields(remote_result)
        == error_fields(InternalError(error_id=CTX.request_id))
    )
    assert [(line["event"], line["request_id"]) for line in lines if line.get("exc_info")] == [
        ("rpc.handler_failed", CTX.request_id),
        ("request.failed", CTX.request_id),
    ]


# Completeness


@pytest.mark.parametrize("context", CONTRACTS)
def test_allowed_calls_name_contract_methods(context: str) -> None:
    contract = CONTRACTS[context]

    assert (
        set(topology().allowed_calls[context])
        == methods_of(contract.protocol)
        == set(contract.samples)
    )
    assert all(topology().allowed_calls[context].values()), "a contract method without a caller"


def test_every_called_context_has_a_contract() -> None:
    assert {context for context, methods in topology().allowed_calls.items() if methods} == set(
        CONTRACTS
    )


@pytest.mark.parametrize("context", CONTRACTS)
def test_each_method_has_one_endpoint_and_its_own_scope(context: str) -> None:
    contract = CONTRACTS[context]
    routes = [route for route in contract.router.routes if isinstance(route, APIRoute)]
    found = sorted((route.path, _scopes(route), sorted(route.methods or ())) for route in routes)

    assert len(routes) == len(contract.router.routes)
    assert found == sorted(
        (f"/internal/{context}/{method}", [f"{context}.{method}"], ["POST"])
        for method in methods_of(contract.protocol)
    )


@pytest.mark.parametrize("context", CONTRACTS)
def test_remote_client_has_exactly_contract_methods(context: str) -> None:
    contract = CONTRACTS[context]
    remote: Any = contract.remote

    assert methods_of(remote) == methods_of(contract.protocol)
    for method in methods_of(remote):
        remote_result, local = getattr(remote, method), getattr(contract.protocol, method)
        assert inspect.signature(remote_result) == inspect.signature(local), method
        assert inspect.iscoroutinefunction(remote_result)


@pytest.mark.parametrize(("context", "method"), METHODS)
def test_endpoint_documents_docstring_errors(context: str, method: str) -> None:
    contract = CONTRACTS[context]
    (route,) = [
        route
        for route in contract.router.routes
        if isinstance(route, APIRoute) and route.path.endswith(f"/{method}")
    ]

    assert _documented(route) == {kind.code for kind in contract.documented_errors(method)}


@pytest.mark.parametrize(("context", "method"), METHODS)
def test_samples_differ_from_defaults(context: str, method: str) -> None:
    for sample in CONTRACTS[context].samples[method]:
        if isinstance(sample, BaseModel):
            dumped = sample.model_dump(exclude_defaults=True)
            assert set(dumped) == set(type(sample).model_fields)


@pytest.mark.parametrize(("context", "method"), METHODS)
def test_dtos_are_deeply_immutable(context: str, method: str) -> None:
    """A DTO must be immutable, because in process caller and callee share the object."""
    for sample in CONTRACTS[context].samples[method]:
        assert list(_mutable_parts(sample)) == []


def _mutable_parts(value: Any) -> Iterator[str]:
    if isinstance(value, tuple | frozenset):
        for part in value:
            yield from _mutable_parts(part)
    elif isinstance(value, Dto):
        for name in type(value).model_fields:
            yield from _mutable_parts(getattr(value, name))
        if _is_mutable(value):
            yield type(value).__name__
    elif not isinstance(value, _IMMUTABLE):
        yield type(value).__name__


def _is_mutable(dto: Dto) -> bool:
    name = next(iter(type(dto).model_fields))
    try:
        setattr(dto, name, getattr(dto, name))
    except ValidationError:
        return False
    return True


def _without_deadline(ctx: CallContext) -> CallContext:
    """Return the call context without its deadline, which CallGuard shortens in each call."""
    return ctx.model_copy(update={"deadline": None})


def _scopes(route: APIRoute) -> list[str | None]:
    calls = [dependency.call for dependency in route.dependant.dependencies]
    return [call.scope for call in calls if isinstance(call, ServiceRoutePolicy)]


def _documented(route: APIRoute) -> set[str]:
    return {
        code
        for response in route.responses.values()
        for content in response["content"].values()
        for code in content["examples"]
    }
