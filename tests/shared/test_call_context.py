"""The call context: who asks, and what they may see."""

import pytest
from pydantic import ValidationError

from markethall.shared.kernel.call_context import Actor, CallContext, system_context
from markethall.shared.kernel.errors import Forbidden
from markethall.shared.kernel.ids import new_id


def call_of(actor: Actor) -> CallContext:
    return CallContext(actor=actor, request_id="request")


def test_user_can_view_own_data_only() -> None:
    me, other = new_id(), new_id()
    ctx = call_of(Actor(user_id=me, scopes=frozenset({"orders"})))

    assert ctx.can_view(me, "orders:manage")
    assert not ctx.can_view(other, "orders:manage")


def test_staff_need_scope_to_view() -> None:
    ctx = call_of(Actor(user_id=new_id(), scopes=frozenset({"orders:manage"})))

    assert ctx.can_view(new_id(), "orders:manage")
    assert not ctx.can_view(new_id(), "payments:manage")


def test_unowned_data_is_not_visible() -> None:
    nobody = call_of(Actor())

    assert not nobody.can_view(None, "orders:manage")  # type: ignore[arg-type] # a row without owner


def test_missing_user_is_rejected() -> None:
    me = new_id()

    assert call_of(Actor(user_id=me)).user_id == me
    with pytest.raises(Forbidden):
        _ = call_of(Actor()).user_id


def test_audit_name_is_user_id_or_system_name() -> None:
    me = new_id()

    assert Actor(user_id=me).audit_name == f"user:{me}"
    assert system_context("sweeper").actor.audit_name == "system:sweeper"
    assert Actor().audit_name == "anonymous"


def test_system_call_keeps_or_generates_request_id() -> None:
    kept = system_context("relay", request_id="first", traceparent="00-a-b-01")

    assert (kept.request_id, kept.traceparent) == ("first", "00-a-b-01")
    assert system_context("relay").request_id != system_context("relay").request_id


def test_call_context_is_immutable_and_round_trips_json() -> None:
    ctx = call_of(Actor(user_id=new_id(), roles=("admin",), scopes=frozenset({"a", "b"})))

    with pytest.raises(ValidationError, match="frozen"):
        ctx.request_id = "other"
    assert CallContext.model_validate_json(ctx.model_dump_json()) == ctx
