"""The call context: who asks, and what they may see."""

import pytest
from pydantic import ValidationError

from markethall.shared.call import Actor, Call, system_call
from markethall.shared.errors import Forbidden
from markethall.shared.ids import new_id


def call_of(actor: Actor) -> Call:
    return Call(actor=actor, request_id="request")


def test_a_person_sees_what_is_theirs_and_nothing_else() -> None:
    me, other = new_id(), new_id()
    call = call_of(Actor(user_id=me, scopes=frozenset({"orders"})))

    assert call.sees(me, "orders:manage")
    assert not call.sees(other, "orders:manage")


def test_staff_see_everything_with_the_scope_and_nothing_without() -> None:
    call = call_of(Actor(user_id=new_id(), scopes=frozenset({"orders:manage"})))

    assert call.sees(new_id(), "orders:manage")
    assert not call.sees(new_id(), "payments:manage")


def test_nobody_sees_what_belongs_to_nobody() -> None:
    nobody = call_of(Actor())

    assert not nobody.sees(None, "orders:manage")  # type: ignore[arg-type] # a row without owner


def test_a_person_is_asked_for_where_a_person_is_needed() -> None:
    me = new_id()

    assert call_of(Actor(user_id=me)).user_id == me
    with pytest.raises(Forbidden):
        _ = call_of(Actor()).user_id


def test_timelines_know_people_by_id_and_parts_of_the_system_by_name() -> None:
    me = new_id()

    assert Actor(user_id=me).known_as == f"user:{me}"
    assert system_call("sweeper").actor.known_as == "system:sweeper"
    assert Actor().known_as == "anonymous"


def test_a_system_call_keeps_the_request_that_it_goes_back_to_or_has_an_id_of_its_own() -> None:
    kept = system_call("relay", request_id="first", traceparent="00-a-b-01")

    assert (kept.request_id, kept.traceparent) == ("first", "00-a-b-01")
    assert system_call("relay").request_id != system_call("relay").request_id


def test_a_call_cannot_be_changed_and_survives_json() -> None:
    call = call_of(Actor(user_id=new_id(), roles=("admin",), scopes=frozenset({"a", "b"})))

    with pytest.raises(ValidationError, match="frozen"):
        call.request_id = "other"
    assert Call.model_validate_json(call.model_dump_json()) == call
