"""The call context: actor, ownership and request id."""

import pytest
from pydantic import ValidationError

from markethall.shared.kernel.call_context import Actor, CallContext, system_context
from markethall.shared.kernel.errors import Forbidden
from markethall.shared.kernel.ids import new_id


def context_of(actor: Actor) -> CallContext:
    return CallContext(actor=actor, request_id="request")


def test_user_can_view_own_data_only() -> None:
    user_id, other = new_id(), new_id()
    ctx = context_of(Actor(user_id=user_id, scopes=frozenset({"orders"})))

    assert ctx.can_view(user_id, "orders:manage")
    assert not ctx.can_view(other, "orders:manage")


def test_staff_need_scope_to_view() -> None:
    ctx = context_of(Actor(user_id=new_id(), scopes=frozenset({"orders:manage"})))

    assert ctx.can_view(new_id(), "orders:manage")
    assert not ctx.can_view(new_id(), "payments:manage")


def test_unowned_data_is_not_visible() -> None:
    anonymous = context_of(Actor())

    assert not anonymous.can_view(None, "orders:manage")  # type: ignore[arg-type] # a row without an owner


def test_missing_user_is_rejected() -> None:
    user_id = new_id()

    assert context_of(Actor(user_id=user_id)).user_id == user_id
    with pytest.raises(Forbidden):
        _ = context_of(Actor()).user_id


def test_audit_name_is_user_id_or_system_name() -> None:
    user_id = new_id()

    assert Actor(user_id=user_id).audit_name == f"user:{user_id}"
    assert system_context("expiry").actor.audit_name == "system:expiry"
    assert Actor().audit_name == "anonymous"


def test_system_call_keeps_or_generates_request_id() -> None:
    ctx = system_context("relay", request_id="first", traceparent="00-a-b-01")

    assert (ctx.request_id, ctx.traceparent) == ("first", "00-a-b-01")
    assert system_context("relay").request_id != system_context("relay").request_id


def test_call_context_is_immutable_and_round_trips_json() -> None:
    ctx = context_of(Actor(user_id=new_id(), roles=("admin",), scopes=frozenset({"a", "b"})))

    with pytest.raises(ValidationError, match="frozen"):
        ctx.request_id = "other"
    assert CallContext.model_validate_json(ctx.model_dump_json()) == ctx
