"""Every release gets on with the one before it: what would break an older neighbour is named."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from markethall import __version__
from scripts.check_wire import HOW_TO_RECORD, RELEASES, current_wire, last_release, main, number_of
from scripts.wire_compatibility import incompatible_changes

Change = Callable[["Wire"], Any]


class Wire:
    """What is said now, to be changed by a test."""

    def __init__(self, current_schema: dict[str, Any]) -> None:
        self.current_schema = deepcopy(current_schema)
        self.schemas = self.current_schema["openapi"]["components"]["schemas"]
        self.paths = self.current_schema["openapi"]["paths"]
        self.events = self.current_schema["events"]

    def field(self, schema: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.schemas[schema]["properties"][name]
        return found

    def take_away(self, schema: str, name: str) -> None:
        del self.schemas[schema]["properties"][name]
        self.schemas[schema]["required"].remove(name)

    def add(self, schema: str, name: str, *, required: bool, **field: Any) -> None:
        self.schemas[schema]["properties"][name] = field or {"type": "string"}
        if required:
            self.schemas[schema]["required"].append(name)

    def not_required(self, schema: str, name: str) -> None:
        self.schemas[schema]["required"].remove(name)

    def answer(self, path: str, status: str) -> dict[str, Any]:
        found: dict[str, Any] = self.paths[path]["post"]["responses"][status]
        return found

    def refuse_only_with(self, field: str, code: str) -> None:
        self.problems(USERS, "403")[code] = {}
        self.paths[USERS]["post"]["x-refused-only-with"] = {field: [code]}

    def problems(self, path: str, status: str) -> dict[str, Any]:
        found: dict[str, Any] = self.answer(path, status)["content"]["application/problem+json"]
        return found["examples"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def current_schema() -> dict[str, Any]:
    return current_wire()


USERS = "/internal/users/get_active_customer"
WITH_WANTS = ("reserve", "consume", "release_part")
UNREADABLE = "is new, and an older one cannot read it"
STILL_SENT = "is gone, and an older one still sends it"
NEVER_SENT = "is new and has no default, and an older one does not send it"

BREAKS: dict[str, tuple[Change, set[str]]] = {
    "a method is gone": (
        lambda wire: wire.paths.pop(USERS),
        {"users.get_active_customer: is not there any more"},
    ),
    "a method is asked in another way": (
        lambda wire: wire.paths.update({USERS: {"put": wire.paths[USERS]["post"]}}),
        {"users.get_active_customer: is not there any more"},
    ),
    "a request field is new and required": (
        lambda wire: wire.add("Whom", "reason", required=True),
        {"users.get_active_customer: request field reason: is new and required"},
    ),
    "a request field becomes required": (
        lambda wire: wire.schemas["RefundPayment"]["required"].append("reason"),
        {"payments.refund: request field reason: is needed, and may be left out"},
    ),
    "a request field is gone": (
        lambda wire: wire.take_away("Reserve", "customer_id"),
        {"inventory.reserve: request field customer_id: is not taken any more"},
    ),
    "a request field is of another type": (
        lambda wire: wire.field("Whom", "user_id").update(type="integer"),
        {"users.get_active_customer: request field user_id: type string -> integer"},
    ),
    "a request field is of another format": (
        lambda wire: wire.field("OpenPayment", "expires_at").update(format="date"),
        {"payments.open: request field expires_at: format date-time -> date"},
    ),
    "a request field takes null no more": (
        lambda wire: wire.field("RefundPayment", "amount").update(
            anyOf=[{"$ref": "#/components/schemas/Money"}]
        ),
        {"payments.refund: request field amount: may be null: object | null -> object"},
    ),
    "a request field takes one kind less": (
        lambda wire: wire.field("RefundPayment", "amount").update(
            anyOf=[{"type": "integer"}, {"type": "boolean"}, {"type": "null"}]
        ),
        {"payments.refund: request field amount: type object | null -> integer | boolean | null"},
    ),
    "less is taken": (
        lambda wire: wire.field("RequestedLine", "quantity").update(maximum=100),
        {
            f"inventory.{method}: request field lines[].quantity: maximum 1000000 -> 100"
            for method in WITH_WANTS
        },
    ),
    "more is asked for": (
        lambda wire: wire.field("RequestedLine", "quantity").update(minimum=2),
        {
            f"inventory.{method}: request field lines[].quantity: minimum 1 -> 2"
            for method in WITH_WANTS
        },
    ),
    "a limit is new": (
        lambda wire: wire.field("Reserve", "lines").update(maxItems=10),
        {"inventory.reserve: request field lines: maxItems none -> 10"},
    ),
    "a text has a pattern now": (
        lambda wire: wire.field("RefundPayment", "reason").update(pattern="^[a-z]*$"),
        {"payments.refund: request field reason: pattern none -> ^[a-z]*$"},
    ),
    "a request field takes some values only": (
        lambda wire: wire.field("RefundPayment", "reason").update(enum=["", "broken"]),
        {"payments.refund: request field reason: only some values are taken: , broken"},
    ),
    "silence means something else": (
        lambda wire: wire.field("RefundPayment", "reason").update(default="none"),
        {"payments.refund: request field reason: default  -> none"},
    ),
    "a word that nobody knows": (
        lambda wire: wire.field("Reserve", "lines").update(uniqueItems=True),
        {"inventory.reserve: request field lines: uniqueItems none -> True"},
    ),
    "an answer is gone": (
        lambda wire: wire.paths[USERS]["post"]["responses"].update(
            {"204": wire.paths[USERS]["post"]["responses"].pop("200")}
        ),
        {"users.get_active_customer: answers 200 -> 204"},
    ),
    "a response field is gone": (
        lambda wire: wire.take_away("Customer", "email"),
        {"users.get_active_customer: response field email: is not there any more"},
    ),
    "a response field may be left out": (
        lambda wire: wire.not_required("Customer", "email"),
        {"users.get_active_customer: response field email: is needed, and may be left out"},
    ),
    "a response field may be null": (
        lambda wire: wire.field("Customer", "email").update(
            {"anyOf": [{"type": wire.field("Customer", "email").pop("type")}, {"type": "null"}]}
        ),
        {"users.get_active_customer: response field email: may be null: string -> string | null"},
    ),
    "a response field is of another type": (
        lambda wire: wire.field("Customer", "email").update(type="integer"),
        {"users.get_active_customer: response field email: type string -> integer"},
    ),
    "an inner response field is of another type": (
        lambda wire: wire.field("ReservationLineView", "quantity").update(type="number"),
        {
            f"inventory.{method}: response field lines[].quantity: type integer -> number"
            for method in ("reserve", "extend", "commit", "consume", "release_part", "release")
        },
    ),
    "a response field has a new value": (
        lambda wire: wire.schemas["RefundStatus"]["enum"].append("lost"),
        {f"payments.refund: response field status: value 'lost' {UNREADABLE}"},
    ),
    "a value of a response field is gone": (
        lambda wire: wire.schemas["RefundStatus"]["enum"].remove("unknown"),
        {f"payments.refund: response field status: value 'unknown' {STILL_SENT}"},
    ),
    "a response field is new and has no default": (
        lambda wire: wire.add("Customer", "locale", required=True),
        {f"users.get_active_customer: response field locale: {NEVER_SENT}"},
    ),
    "a refusal is gone": (
        lambda wire: wire.problems(USERS, "403").pop("users.inactive"),
        {"users.get_active_customer: refusal users.inactive: is not there any more"},
    ),
    "a refusal has another status": (
        lambda wire: wire.paths[USERS]["post"]["responses"].update(
            {"410": wire.paths[USERS]["post"]["responses"].pop("404")}
        ),
        {"users.get_active_customer: refusal users.not_found: status 404 -> 410"},
    ),
    "a refusal is new": (
        lambda wire: wire.problems(USERS, "403").update({"users.asleep": {}}),
        {
            "users.get_active_customer: refusal users.asleep: is new, and an older caller takes it for a fault"
        },
    ),
    "a refusal is new for what an older one sends": (
        lambda wire: wire.refuse_only_with("user_id", "users.asleep"),
        {
            "users.get_active_customer: refusal users.asleep: is new, and an older caller takes it for a fault"
        },
    ),
    "refusals have another shape": (
        lambda wire: wire.take_away("Problem", "details"),
        {"refusals: field details: is not there any more"},
    ),
    "the actor of a token lacks a field": (
        lambda wire: wire.current_schema["actor"]["properties"].pop("roles"),
        {"actor: field roles: is not taken any more"},
    ),
    "the envelope of an event lacks a field": (
        lambda wire: wire.current_schema["envelope"]["properties"].pop("traceparent"),
        {"envelope: field traceparent: is not there any more"},
    ),
    "the envelope of an event has a field that old ones lack": (
        lambda wire: (
            wire.current_schema["envelope"]["properties"].update(shop={"type": "string"}),
            wire.current_schema["envelope"]["required"].append("shop"),
        ),
        {f"envelope: field shop: {NEVER_SENT}"},
    ),
    "an event is gone": (
        lambda wire: wire.events.pop("payments.payment_failed"),
        {"event payments.payment_failed: is not there any more"},
    ),
    "a field of an event is gone": (
        lambda wire: (
            wire.events["payments.payment_failed"]["properties"].pop("failure_code"),
            wire.events["payments.payment_failed"]["required"].remove("failure_code"),
        ),
        {"event payments.payment_failed: field failure_code: is not there any more"},
    ),
    "a field of an event is new and those of the outbox lack it": (
        lambda wire: (
            wire.events["payments.payment_failed"]["properties"].update(at={"type": "string"}),
            wire.events["payments.payment_failed"]["required"].append("at"),
        ),
        {f"event payments.payment_failed: field at: {NEVER_SENT}"},
    ),
    "an inner field of an event is of another type": (
        lambda wire: wire.events["payments.payment_captured"]["$defs"]["Money"]["properties"][
            "amount"
        ].update(type="string"),
        {"event payments.payment_captured: field amount.amount: type integer -> string"},
    ),
}

ALLOWED: dict[str, Change] = {
    "nothing": lambda _: None,
    "a request field is new": lambda wire: wire.add("Whom", "reason", required=False),
    "a request field is required no more": lambda wire: wire.schemas["Reserve"]["required"].pop(),
    "more is taken": lambda wire: wire.field("RequestedLine", "quantity").update(
        maximum=10**9, minimum=0
    ),
    "a limit is gone": lambda wire: wire.field("RequestedLine", "quantity").pop("maximum"),
    "a request field takes null too": lambda wire: wire.field("Whom", "user_id").update(
        anyOf=[{"type": "string", "format": "uuid"}, {"type": "null"}]
    ),
    "a request field takes any text": lambda wire: wire.field("Whom", "user_id").pop("format"),
    "a response field is new": lambda wire: wire.add("Customer", "locale", required=False),
    "a method is new": lambda wire: wire.paths.update(
        {"/internal/users/known": deepcopy(wire.paths[USERS])}
    ),
    "a refusal is new that every caller knows": lambda wire: wire.problems(USERS, "403").update(
        {"users.email_taken": {}}
    ),
    "a refusal is new for what no older one sends": lambda wire: wire.refuse_only_with(
        "politely", "users.asleep"
    ),
    "a field of the actor is new": lambda wire: wire.current_schema["actor"]["properties"].update(
        locale={"type": "string", "default": ""}
    ),
    "an event is new": lambda wire: wire.events.update(
        {"users.left": {"type": "object", "properties": {}}}
    ),
    "a field of an event is new": lambda wire: wire.events["payments.payment_failed"][
        "properties"
    ].update(at={"type": "string", "default": ""}),
    "other words for people": lambda wire: (
        wire.field("Whom", "user_id").update(title="Who", description="!", examples=["x"]),
        wire.paths[USERS]["post"].update(summary="!", operationId="x"),
    ),
    "another name of a schema": lambda wire: (
        wire.schemas.update(Person=wire.schemas.pop("Customer")),
        wire.answer(USERS, "200")["content"]["application/json"]["schema"].update(
            {"$ref": "#/components/schemas/Person"}
        ),
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_breaking_changes_are_reported(current_schema: dict[str, Any], name: str) -> None:
    change, expected = BREAKS[name]
    wire = Wire(current_schema)

    change(wire)

    assert set(incompatible_changes(current_schema, wire.current_schema)) == expected


@pytest.mark.parametrize("name", ALLOWED)
def test_compatible_changes_are_allowed(current_schema: dict[str, Any], name: str) -> None:
    wire = Wire(current_schema)

    ALLOWED[name](wire)

    assert incompatible_changes(current_schema, wire.current_schema) == []


def test_nothing_current_wire_would_break_a_neighbour_of_the_last_release(
    said: dict[str, Any],
) -> None:
    last = last_release(RELEASES)

    assert last is not None, HOW_TO_RECORD
    assert incompatible_changes(last, said) == [], HOW_TO_RECORD


def test_last_recorded_release_is_not_newer() -> None:
    numbers = [number_of(path.stem) for path in RELEASES.glob("*.json")]

    assert max(numbers) <= number_of(__version__)


def test_record_contains_all_methods_and_events(current_schema: dict[str, Any]) -> None:
    assert len(current_schema["openapi"]["paths"]) == 10
    assert "payments.payment_captured" in current_schema["events"]
    assert current_schema["refusals"]["inventory.out_of_stock"] == 409
    assert json.dumps(current_schema, sort_keys=True) == json.dumps(current_wire(), sort_keys=True)


def test_a_release_is_recorded_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = main(["--record", "0.9.0"], tmp_path)
    again = main(["--record", "0.9.0"], tmp_path)
    compared = main([], tmp_path)

    assert (first, again, compared) == (0, 2, 0)
    assert "a release does not change" in capsys.readouterr().out


def test_breaking_change_is_reported_and_not_recorded(
    tmp_path: Path, current_schema: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    wire = Wire(current_schema)
    wire.field("RequestedLine", "quantity").update(maximum=10**7)
    (tmp_path / "0.9.0.json").write_text(json.dumps(current_schema))
    (tmp_path / "0.10.0.json").write_text(json.dumps(wire.current_schema))

    codes = main([], tmp_path), main(["--record", "0.11.0"], tmp_path)

    told = capsys.readouterr().out
    assert codes == (1, 1)
    assert "inventory.reserve: request field lines[].quantity: maximum 10000000 -> 1000000" in told
    assert "python -m scripts.check_wire --record VERSION" in told
    assert not (tmp_path / "0.11.0.json").exists()
