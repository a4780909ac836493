"""Every method of every contract: what is asked, answered and refused arrives unchanged."""

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
from markethall.shared.rpc.client_interceptor import with_call_guard
from markethall.shared.rpc.server import ServiceRoutePolicy
from tests.rpc.contracts import CONTRACTS, METHODS, SYSTEM, StandIn, methods_of
from tests.rpc.probe_contract import CALL, refusal_of
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
# of these the caller can say no more than that the neighbour is not to be had
OURS_ALONE = {Unauthenticated: Unavailable, RouteNotFound: Unavailable}


@asynccontextmanager
async def both_ways(context: str, provider: Any) -> AsyncIterator[tuple[Any, Any]]:
    """The contract as orders has it: in process, and over the wire."""
    contract = CONTRACTS[context]
    wired = over_rpc(context, contract.router, provider, contract.remote)
    async with wired as remote:
        yield (
            with_call_guard(provider, guard_of(context)),
            with_call_guard(remote, guard_of(context)),
        )


def cells() -> Iterator[tuple[str, str, type[DomainError]]]:
    """(context, method, refusal): those of the docstring, and those that any call may end in."""
    for context, method in METHODS:
        named = CONTRACTS[context].refusals(method)
        yield from ((context, method, kind) for kind in sorted(named, key=lambda kind: kind.code))
    for context in CONTRACTS:
        method = next(iter(CONTRACTS[context].samples))
        yield from ((context, method, kind) for kind in SYSTEM)


def told(refusal: DomainError) -> tuple[Any, ...]:
    return (
        type(refusal),
        refusal.detail,
        refusal.details,
        refusal.status,
        refusal.retry_after,
        refusal.is_deterministic,
    )


@pytest.mark.parametrize(("context", "method"), METHODS)
async def test_arguments_and_results_round_trip(context: str, method: str) -> None:
    provider = StandIn(CONTRACTS[context])
    asked, answered = CONTRACTS[context].samples[method]

    async with both_ways(context, provider) as ways:
        answers = [await getattr(way, method)(CALL, asked) for way in ways]

    here, there = provider.asked
    assert answers == [answered, answered]
    assert (here[0], here[2]) == (there[0], there[2]) == (method, asked)
    assert _lasting(here[1]) == _lasting(there[1]) == _lasting(CALL)


@pytest.mark.parametrize(("context", "method", "kind"), list(cells()))
async def test_domain_error_is_same_local_and_remote(
    context: str, method: str, kind: type[DomainError]
) -> None:
    provider = StandIn(CONTRACTS[context], kind("In these words: é.", **DETAILS))
    asked, _ = CONTRACTS[context].samples[method]

    async with both_ways(context, provider) as ways:
        here, there = [await refusal_of(getattr(way, method)(CALL, asked)) for way in ways]

    assert told(here) == (kind, "In these words: é.", DETAILS, kind.status, *told(here)[4:])
    if kind in OURS_ALONE:
        assert told(there) == told(OURS_ALONE[kind](dependency=context))
    else:
        assert told(there) == told(here)


@pytest.mark.parametrize(("context", "method"), METHODS)
async def test_internal_error_is_same_local_and_remote(context: str, method: str) -> None:
    provider = StandIn(CONTRACTS[context], RuntimeError("a secret"))
    asked, _ = CONTRACTS[context].samples[method]

    with capture_logs() as lines:
        async with both_ways(context, provider) as ways:
            here, there = [await refusal_of(getattr(way, method)(CALL, asked)) for way in ways]

    assert told(here) == told(there) == told(InternalError(error_id=CALL.request_id))
    assert [(line["event"], line["request_id"]) for line in lines if line.get("exc_info")] == [
        ("rpc.handler_failed", CALL.request_id),
        ("request.failed", CALL.request_id),
    ]


# What must be complete


@pytest.mark.parametrize("context", CONTRACTS)
def test_allowed_calls_name_contract_methods(context: str) -> None:
    contract = CONTRACTS[context]

    assert (
        set(topology().allowed_calls[context])
        == methods_of(contract.protocol)
        == set(contract.samples)
    )
    assert all(topology().allowed_calls[context].values()), (
        "a method that nobody may call is no promise"
    )


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
        there, here = getattr(remote, method), getattr(contract.protocol, method)
        assert inspect.signature(there) == inspect.signature(here), method
        assert inspect.iscoroutinefunction(there)


@pytest.mark.parametrize(("context", "method"), METHODS)
def test_endpoint_documents_docstring_errors(context: str, method: str) -> None:
    contract = CONTRACTS[context]
    (route,) = [
        route
        for route in contract.router.routes
        if isinstance(route, APIRoute) and route.path.endswith(f"/{method}")
    ]

    assert _documented(route) == {kind.code for kind in contract.refusals(method)}


@pytest.mark.parametrize(("context", "method"), METHODS)
def test_samples_differ_from_defaults(context: str, method: str) -> None:
    for sample in CONTRACTS[context].samples[method]:
        if isinstance(sample, BaseModel):
            kept = sample.model_dump(exclude_defaults=True)
            assert set(kept) == set(type(sample).model_fields)


@pytest.mark.parametrize(("context", "method"), METHODS)
def test_dtos_are_deeply_immutable(context: str, method: str) -> None:
    """In process the very object is handed over: nobody can change it behind the other's back."""
    for sample in CONTRACTS[context].samples[method]:
        assert list(_changeable(sample)) == []


def _changeable(value: Any) -> Iterator[str]:
    if isinstance(value, tuple | frozenset):
        for part in value:
            yield from _changeable(part)
    elif isinstance(value, Dto):
        for name in type(value).model_fields:
            yield from _changeable(getattr(value, name))
        if _takes_changes(value):
            yield type(value).__name__
    elif not isinstance(value, _IMMUTABLE):
        yield type(value).__name__


def _takes_changes(dto: Dto) -> bool:
    name = next(iter(type(dto).model_fields))
    try:
        setattr(dto, name, getattr(dto, name))
    except ValidationError:
        return False
    return True


def _lasting(ctx: CallContext) -> CallContext:
    """All but the deadline, which is shorter at the other end."""
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
