"""Test that the check reports incompatible changes of the internal API and events, and no others.

A record is the JSON description of the internal API and the events of one release.
"""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from markethall import __version__
from scripts.check_rpc import HOW_TO_RECORD, RELEASES, current_record, last_release, main, number_of
from scripts.rpc_compatibility import incompatible_changes

Change = Callable[["ChangedRecord"], Any]


class ChangedRecord:
    """A copy of the current record that a test changes."""

    def __init__(self, current_schema: dict[str, Any]) -> None:
        self.current_schema = deepcopy(current_schema)
        self.schemas = self.current_schema["openapi"]["components"]["schemas"]
        self.paths = self.current_schema["openapi"]["paths"]
        self.events = self.current_schema["events"]

    def field(self, schema: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.schemas[schema]["properties"][name]
        return found

    def remove_field(self, schema: str, name: str) -> None:
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

    def add_error_of_field(self, field: str, code: str) -> None:
        self.problems(USERS, "403")[code] = {}
        self.paths[USERS]["post"]["x-refused-only-with"] = {field: [code]}

    def problems(self, path: str, status: str) -> dict[str, Any]:
        found: dict[str, Any] = self.answer(path, status)["content"]["application/problem+json"]
        return found["examples"]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def current_schema() -> dict[str, Any]:
    return current_record()


USERS = "/internal/users/get_active_customer"
METHODS_WITH_LINES = ("reserve", "consume", "release_part", "restock")
UNREADABLE = "is new, and an older one cannot read it"
STILL_SENT = "is gone, and an older one still sends it"
UNKNOWN_ERROR = "is new, and an older caller reports an internal error"
NEVER_SENT = "is new and has no default, and an older one does not send it"

BREAKS: dict[str, tuple[Change, set[str]]] = {
    "a method is removed": (
        lambda record: record.paths.pop(USERS),
        {"users.get_active_customer: is removed"},
    ),
    "a method is asked in another way": (
        lambda record: record.paths.update({USERS: {"put": record.paths[USERS]["post"]}}),
        {"users.get_active_customer: is removed"},
    ),
    "a request field is new and required": (
        lambda record: record.add("UserRef", "reason", required=True),
        {"users.get_active_customer: request field reason: is new and required"},
    ),
    "a request field becomes required": (
        lambda record: record.schemas["RefundPayment"]["required"].append("reason"),
        {"payments.refund: request field reason: is needed, and may be left out"},
    ),
    "a request field is removed": (
        lambda record: record.remove_field("Reserve", "customer_id"),
        {"inventory.reserve: request field customer_id: is not taken any more"},
    ),
    "a request field is of another type": (
        lambda record: record.field("UserRef", "user_id").update(type="integer"),
        {"users.get_active_customer: request field user_id: type string -> integer"},
    ),
    "a request field is of another format": (
        lambda record: record.field("OpenPayment", "expires_at").update(format="date"),
        {"payments.open: request field expires_at: format date-time -> date"},
    ),
    "a request field takes null no more": (
        lambda record: record.field("RefundPayment", "amount").update(
            anyOf=[{"$ref": "#/components/schemas/Money"}]
        ),
        {"payments.refund: request field amount: may be null: object | null -> object"},
    ),
    "a request field accepts one type less": (
        lambda record: record.field("RefundPayment", "amount").update(
            anyOf=[{"type": "integer"}, {"type": "boolean"}, {"type": "null"}]
        ),
        {"payments.refund: request field amount: type object | null -> integer | boolean | null"},
    ),
    "a maximum is lower": (
        lambda record: record.field("RequestedLine", "quantity").update(maximum=100),
        {
            f"inventory.{method}: request field lines[].quantity: maximum 1000000 -> 100"
            for method in METHODS_WITH_LINES
        },
    ),
    "a minimum is higher": (
        lambda record: record.field("RequestedLine", "quantity").update(minimum=2),
        {
            f"inventory.{method}: request field lines[].quantity: minimum 1 -> 2"
            for method in METHODS_WITH_LINES
        },
    ),
    "a limit is new": (
        lambda record: record.field("Reserve", "lines").update(maxItems=10),
        {"inventory.reserve: request field lines: maxItems none -> 10"},
    ),
    "a text has a pattern now": (
        lambda record: record.field("RefundPayment", "reason").update(pattern="^[a-z]*$"),
        {"payments.refund: request field reason: pattern none -> ^[a-z]*$"},
    ),
    "a request field accepts some values only": (
        lambda record: record.field("RefundPayment", "reason").update(enum=["", "broken"]),
        {"payments.refund: request field reason: only some values are taken: , broken"},
    ),
    "a default is different": (
        lambda record: record.field("RefundPayment", "reason").update(default="none"),
        {"payments.refund: request field reason: default  -> none"},
    ),
    "an unknown keyword is added": (
        lambda record: record.field("Reserve", "lines").update(uniqueItems=True),
        {"inventory.reserve: request field lines: uniqueItems none -> True"},
    ),
    "an answer is removed": (
        lambda record: record.paths[USERS]["post"]["responses"].update(
            {"204": record.paths[USERS]["post"]["responses"].pop("200")}
        ),
        {"users.get_active_customer: answers 200 -> 204"},
    ),
    "a response field is removed": (
        lambda record: record.remove_field("Customer", "email"),
        {"users.get_active_customer: response field email: is removed"},
    ),
    "a response field may be left out": (
        lambda record: record.not_required("Customer", "email"),
        {"users.get_active_customer: response field email: is needed, and may be left out"},
    ),
    "a response field may be null": (
        lambda record: record.field("Customer", "email").update(
            {"anyOf": [{"type": record.field("Customer", "email").pop("type")}, {"type": "null"}]}
        ),
        {"users.get_active_customer: response field email: may be null: string -> string | null"},
    ),
    "a response field is of another type": (
        lambda record: record.field("Customer", "email").update(type="integer"),
        {"users.get_active_customer: response field email: type string -> integer"},
    ),
    "an inner response field is of another type": (
        lambda record: record.field("ReservationLineView", "quantity").update(type="number"),
        {
            f"inventory.{method}: response field lines[].quantity: type integer -> number"
            for method in (
                "reserve",
                "extend",
                "commit",
                "consume",
                "release_part",
                "release",
                "merge",
            )
        },
    ),
    "a response field has a new value": (
        lambda record: record.schemas["RefundStatus"]["enum"].append("lost"),
        {f"payments.refund: response field status: value 'lost' {UNREADABLE}"},
    ),
    "a value of a response field is removed": (
        lambda record: record.schemas["RefundStatus"]["enum"].remove("unknown"),
        {f"payments.refund: response field status: value 'unknown' {STILL_SENT}"},
    ),
    "a response field is new and has no default": (
        lambda record: record.add("Customer", "locale", required=True),
        {f"users.get_active_customer: response field locale: {NEVER_SENT}"},
    ),
    "an error is removed": (
        lambda record: record.problems(USERS, "403").pop("users.inactive"),
        {"users.get_active_customer: error users.inactive: is removed"},
    ),
    "an error has another status": (
        lambda record: record.paths[USERS]["post"]["responses"].update(
            {"410": record.paths[USERS]["post"]["responses"].pop("404")}
        ),
        {"users.get_active_customer: error users.not_found: status 404 -> 410"},
    ),
    "an error is new": (
        lambda record: record.problems(USERS, "403").update({"users.asleep": {}}),
        {f"users.get_active_customer: error users.asleep: {UNKNOWN_ERROR}"},
    ),
    "an error is new for a field that an older service sends": (
        lambda record: record.add_error_of_field("user_id", "users.asleep"),
        {f"users.get_active_customer: error users.asleep: {UNKNOWN_ERROR}"},
    ),
    "errors have another schema": (
        lambda record: record.remove_field("Problem", "details"),
        {"errors: field details: is removed"},
    ),
    "the actor of a token lacks a field": (
        lambda record: record.current_schema["actor"]["properties"].pop("roles"),
        {"actor: field roles: is not taken any more"},
    ),
    "the envelope of an event lacks a field": (
        lambda record: record.current_schema["envelope"]["properties"].pop("traceparent"),
        {"envelope: field traceparent: is removed"},
    ),
    "the envelope of an event has a field that old ones lack": (
        lambda record: (
            record.current_schema["envelope"]["properties"].update(shop={"type": "string"}),
            record.current_schema["envelope"]["required"].append("shop"),
        ),
        {f"envelope: field shop: {NEVER_SENT}"},
    ),
    "an event is removed": (
        lambda record: record.events.pop("payments.payment_failed"),
        {"event payments.payment_failed: is removed"},
    ),
    "a field of an event is removed": (
        lambda record: (
            record.events["payments.payment_failed"]["properties"].pop("failure_code"),
            record.events["payments.payment_failed"]["required"].remove("failure_code"),
        ),
        {"event payments.payment_failed: field failure_code: is removed"},
    ),
    "a field of an event is new and those of the outbox lack it": (
        lambda record: (
            record.events["payments.payment_failed"]["properties"].update(at={"type": "string"}),
            record.events["payments.payment_failed"]["required"].append("at"),
        ),
        {f"event payments.payment_failed: field at: {NEVER_SENT}"},
    ),
    "an inner field of an event is of another type": (
        lambda record: record.events["payments.payment_captured"]["$defs"]["Money"]["properties"][
            "amount"
        ].update(type="string"),
        {"event payments.payment_captured: field amount.amount: type integer -> string"},
    ),
}

ALLOWED: dict[str, Change] = {
    "nothing": lambda _: None,
    "a request field is new": lambda record: record.add("UserRef", "reason", required=False),
    "a request field is required no more": lambda record: record.schemas["Reserve"][
        "required"
    ].pop(),
    "more is taken": lambda record: record.field("RequestedLine", "quantity").update(
        maximum=10**9, minimum=0
    ),
    "a limit is removed": lambda record: record.field("RequestedLine", "quantity").pop("maximum"),
    "a request field accepts null too": lambda record: record.field("UserRef", "user_id").update(
        anyOf=[{"type": "string", "format": "uuid"}, {"type": "null"}]
    ),
    "a request field accepts any text": lambda record: record.field("UserRef", "user_id").pop(
        "format"
    ),
    "a response field is new": lambda record: record.add("Customer", "locale", required=False),
    "a method is new": lambda record: record.paths.update(
        {"/internal/users/known": deepcopy(record.paths[USERS])}
    ),
    "an error is new that every caller knows": lambda record: record.problems(USERS, "403").update(
        {"users.email_taken": {}}
    ),
    "an error is new for a field that no older service sends": lambda record: (
        record.add_error_of_field("politely", "users.asleep")
    ),
    "a field of the actor is new": lambda record: record.current_schema["actor"][
        "properties"
    ].update(locale={"type": "string", "default": ""}),
    "an event is new": lambda record: record.events.update(
        {"users.left": {"type": "object", "properties": {}}}
    ),
    "a field of an event is new": lambda record: record.events["payments.payment_failed"][
        "properties"
    ].update(at={"type": "string", "default": ""}),
    "descriptions are different": lambda record: (
        record.field("UserRef", "user_id").update(title="Who", description="!", examples=["x"]),
        record.paths[USERS]["post"].update(summary="!", operationId="x"),
    ),
    "another name of a schema": lambda record: (
        record.schemas.update(Person=record.schemas.pop("Customer")),
        record.answer(USERS, "200")["content"]["application/json"]["schema"].update(
            {"$ref": "#/components/schemas/Person"}
        ),
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_breaking_changes_are_reported(current_schema: dict[str, Any], name: str) -> None:
    change, expected = BREAKS[name]
    record = ChangedRecord(current_schema)

    change(record)

    assert set(incompatible_changes(current_schema, record.current_schema)) == expected


@pytest.mark.parametrize("name", ALLOWED)
def test_compatible_changes_are_allowed(current_schema: dict[str, Any], name: str) -> None:
    record = ChangedRecord(current_schema)

    ALLOWED[name](record)

    assert incompatible_changes(current_schema, record.current_schema) == []


def test_service_of_the_last_release_is_compatible(
    current_schema: dict[str, Any],
) -> None:
    last = last_release(RELEASES)

    assert last is not None, HOW_TO_RECORD
    assert incompatible_changes(last, current_schema) == [], HOW_TO_RECORD


def test_last_recorded_release_is_not_newer() -> None:
    numbers = [number_of(path.stem) for path in RELEASES.glob("*.json")]

    assert max(numbers) <= number_of(__version__)


def test_record_contains_all_methods_and_events(current_schema: dict[str, Any]) -> None:
    assert len(current_schema["openapi"]["paths"]) == 19
    assert "payments.payment_captured" in current_schema["events"]
    assert current_schema["errors"]["inventory.out_of_stock"] == 409
    assert json.dumps(current_schema, sort_keys=True) == json.dumps(
        current_record(), sort_keys=True
    )


def test_a_release_is_recorded_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = main(["--record", "0.9.0"], tmp_path)
    again = main(["--record", "0.9.0"], tmp_path)
    compared = main([], tmp_path)

    assert (first, again, compared) == (0, 2, 0)
    assert "a release does not change" in capsys.readouterr().out


def test_breaking_change_is_reported_and_not_recorded(
    tmp_path: Path, current_schema: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    record = ChangedRecord(current_schema)
    record.field("RequestedLine", "quantity").update(maximum=10**7)
    (tmp_path / "0.9.0.json").write_text(json.dumps(current_schema))
    (tmp_path / "0.10.0.json").write_text(json.dumps(record.current_schema))

    codes = main([], tmp_path), main(["--record", "0.11.0"], tmp_path)

    output = capsys.readouterr().out
    assert codes == (1, 1)
    assert (
        "inventory.reserve: request field lines[].quantity: maximum 10000000 -> 1000000" in output
    )
    assert "python -m scripts.check_rpc --record VERSION" in output
    assert not (tmp_path / "0.11.0.json").exists()
