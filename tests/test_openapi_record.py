"""Test that the recorded OpenAPI document is current, and that incompatible changes are found."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from markethall import __version__
from scripts import check_openapi
from scripts.check_openapi import HOW_TO_CHANGE, HOW_TO_RECORD, found_changes, is_current, main
from scripts.openapi_compatibility import incompatible_changes
from scripts.openapi_document import as_text, build_document
from scripts.shared_responses import inline_responses

Json = dict[str, Any]


class ChangedDocument:
    """A copy of the document, in which a test plants a change."""

    def __init__(self, document: Json) -> None:
        # faster than `deepcopy`
        self.document: Json = json.loads(json.dumps(inline_responses(document)))
        self.paths: Json = self.document["paths"]
        self.schemas: Json = self.document["components"]["schemas"]

    def operation(self, name: str) -> Json:
        method, path = name.split()
        found: Json = self.paths[path][method.lower()]
        return found

    def field(self, schema: str, name: str) -> Json:
        found: Json = self.schemas[schema]["properties"][name]
        return found

    def parameter(self, name: str, parameter: str) -> Json:
        found: Json = next(
            one for one in self.operation(name)["parameters"] if one["name"] == parameter
        )
        return found

    def remove_field(self, schema: str, name: str) -> None:
        del self.schemas[schema]["properties"][name]
        self.schemas[schema]["required"].remove(name)

    def remove_parameter(self, name: str, parameter: str) -> None:
        parameters = self.operation(name)["parameters"]
        parameters.remove(self.parameter(name, parameter))

    def add_parameter(self, name: str, parameter: str, *, required: bool) -> None:
        added = {"in": "query", "name": parameter, "required": required, "schema": TEXT}
        self.operation(name)["parameters"].append(added)

    def problems(self, name: str, status: str) -> Json:
        response = self.operation(name)["responses"][status]
        found: Json = response["content"]["application/problem+json"]["examples"]
        return found


Change = Callable[[ChangedDocument], Any]

PLACE = "POST /orders"
STATUS = "GET /orders/{order_id}/status"
LIST = "GET /orders"
CANCEL = "POST /orders/{order_id}/cancel"
ADJUST = "POST /products/{product_id}/stock-adjustments"
NEW = "is new, and an older one cannot read it"
TEXT = {"type": "string"}
NULLABLE_ID = {"anyOf": [{"type": "string", "format": "uuid"}, {"type": "null"}]}

BREAKS: dict[str, tuple[Change, set[str]]] = {
    "a path is removed": (
        lambda it: it.paths.pop("/orders/{order_id}/timeline"),
        {"GET /orders/{order_id}/timeline: is removed"},
    ),
    "an operation is removed": (
        lambda it: it.paths["/products/{product_id}"].pop("delete"),
        {"DELETE /products/{product_id}: is removed"},
    ),
    "an operation has another id": (
        lambda it: it.operation(PLACE).update(operationId="create_order"),
        {f"{PLACE}: operationId place_order -> create_order"},
    ),
    "another scope is required": (
        lambda it: it.operation(PLACE).update(security=[{"oauth2": ["profile"]}]),
        {f"{PLACE}: a token with orders is not enough any more"},
    ),
    "one more scope is required": (
        lambda it: it.operation(PLACE).update(security=[{"oauth2": ["orders", "profile"]}]),
        {f"{PLACE}: a token with orders is not enough any more"},
    ),
    "one of several scopes is not accepted any more": (
        lambda it: it.operation(STATUS)["security"].remove({"oauth2": ["orders:manage"]}),
        {f"{STATUS}: a token with orders:manage is not enough any more"},
    ),
    "a public operation requires a token": (
        lambda it: it.operation("GET /categories").update(security=[{"oauth2": ["orders"]}]),
        {"GET /categories: a request without a token is not enough any more"},
    ),
    "a token is not optional any more": (
        lambda it: it.operation("GET /products")["security"].remove({}),
        {"GET /products: a request without a token is not enough any more"},
    ),
    "a query parameter is removed": (
        lambda it: it.remove_parameter(LIST, "status"),
        {f"{LIST}: query parameter status: is not taken any more"},
    ),
    "a query parameter is new and required": (
        lambda it: it.add_parameter(LIST, "shop", required=True),
        {f"{LIST}: query parameter shop: is new and required"},
    ),
    "a header becomes required": (
        lambda it: it.parameter("POST /users", "Idempotency-Key").update(required=True),
        {"POST /users: header parameter Idempotency-Key: is needed, and may be left out"},
    ),
    "a header is not read any more": (
        lambda it: it.remove_parameter(STATUS, "If-None-Match"),
        {f"{STATUS}: header parameter If-None-Match: is not taken any more"},
    ),
    "a query parameter is narrower": (
        lambda it: it.parameter(LIST, "limit")["schema"].update(maximum=50),
        {f"{LIST}: query parameter limit: maximum 100 -> 50"},
    ),
    "a query parameter has another default": (
        lambda it: it.parameter(LIST, "limit")["schema"].update(default=50),
        {f"{LIST}: query parameter limit: default 20 -> 50"},
    ),
    "a path parameter is narrower": (
        lambda it: it.parameter("GET /products/by-sku/{sku}", "sku")["schema"].update(maxLength=9),
        {"GET /products/by-sku/{sku}: path parameter sku: maxLength 100 -> 9"},
    ),
    "a value of a query parameter is removed": (
        lambda it: it.schemas["OrderSort"]["enum"].remove("created_at"),
        {
            f"{operation}: query parameter sort: value 'created_at' is not taken any more"
            for operation in (LIST, "GET /orders/export.csv")
        },
    ),
    "a body is new and required": (
        lambda it: it.operation("POST /imports/{import_id}/retry").update(
            requestBody={"required": True, "content": {"application/json": {"schema": TEXT}}}
        ),
        {"POST /imports/{import_id}/retry: a body is new and required"},
    ),
    "a body is not taken any more": (
        lambda it: it.operation(PLACE).pop("requestBody"),
        {f"{PLACE}: takes no body any more"},
    ),
    "a media type of a body is removed": (
        lambda it: it.operation("POST /imports")["requestBody"]["content"].pop("text/csv"),
        {"POST /imports: request: text/csv is removed"},
    ),
    "a request field is removed": (
        lambda it: it.schemas["CancelOrder"]["properties"].pop("reason"),
        {f"{CANCEL}: request field reason: is not taken any more"},
    ),
    "a request field is new and required": (
        lambda it: (
            it.schemas["CancelOrder"]["properties"].update(by=TEXT),
            it.schemas["CancelOrder"].setdefault("required", []).append("by"),
        ),
        {f"{CANCEL}: request field by: is new and required"},
    ),
    "a request field is of another type": (
        lambda it: it.field("OrderLineRequest", "quantity").update(type="string"),
        {
            f"{PLACE}: request fields: type object | object -> object | object",
            "POST /carts: request field lines[].quantity: type integer -> string",
            "POST /draft-orders: request field lines[].quantity: type integer -> string",
            (
                "PATCH /draft-orders/{draft_order_id}: request field lines[].quantity:"
                " type integer -> string"
            ),
        },
    ),
    "a request field is shorter": (
        lambda it: it.field("CancelOrder", "reason").update(maxLength=3),
        {f"{CANCEL}: request field reason: maxLength 500 -> 3"},
    ),
    "a value of a request field is removed": (
        lambda it: it.schemas["AdjustmentReason"]["enum"].remove("lost"),
        {f"{ADJUST}: request field reason: value 'lost' is not taken any more"},
    ),
    "a condition between request fields is new": (
        lambda it: it.schemas["CancelOrder"].update(anyOf=[{"required": ["reason"]}]),
        {f"{CANCEL}: request fields: anyOf none -> [{{'required': ['reason']}}]"},
    ),
    "an alternative of a request is removed": (
        lambda it: it.schemas["OrderRequest"]["anyOf"].pop(),
        {f"{PLACE}: request fields: type object | object -> object"},
    ),
    "another status answers": (
        lambda it: it.operation(PLACE)["responses"].update(
            {"200": it.operation(PLACE)["responses"].pop("201")}
        ),
        {f"{PLACE}: answers 201 -> 200"},
    ),
    "another status may answer": (
        lambda it: it.operation(STATUS)["responses"].update({"202": {"description": "Wait"}}),
        {f"{STATUS}: answers 200, 304 -> 200, 202, 304"},
    ),
    "a response field is removed": (
        lambda it: it.remove_field("OrderStatusView", "updated_at"),
        {f"{STATUS}: response field updated_at: is removed"},
    ),
    "a response field may be left out": (
        lambda it: it.schemas["OrderStatusView"]["required"].remove("updated_at"),
        {f"{STATUS}: response field updated_at: is needed, and may be left out"},
    ),
    "a response field may be null": (
        lambda it: it.schemas["OrderStatusView"]["properties"].update(order_id=NULLABLE_ID),
        {f"{STATUS}: response field order_id: may be null: string (uuid) -> string (uuid) | null"},
    ),
    "a response field is of another format": (
        lambda it: it.field("OrderStatusView", "updated_at").update(format="date"),
        {f"{STATUS}: response field updated_at: format date-time -> date"},
    ),
    "a response field has a new value": (
        lambda it: it.schemas["CheckStatus"]["enum"].append("skipped"),
        {f"GET /integrity: response field checks[].status: value 'skipped' {NEW}"},
    ),
    "a response has a new alternative": (
        lambda it: it.schemas["NextAction"]["oneOf"].append({"$ref": "#/components/schemas/Money"}),
        {
            f"{name}: response field {path}next_action: type object | object | object | null -> "
            "object | object | object | object | null"
            for name, path in (
                ("GET /payments", "items[]."),
                ("GET /payments/{payment_id}", ""),
                ("POST /payments/{payment_id}/capture", ""),
                ("POST /payments/{payment_id}/confirm", ""),
                ("POST /payments/{payment_id}/mark-paid", ""),
                ("POST /payments/{payment_id}/void", ""),
            )
        },
    ),
    "a value of a map in a response is of another type": (
        lambda it: it.schemas["Ready"]["properties"]["checks"]["additionalProperties"].update(
            type="integer"
        ),
        {"GET /ready: response field checks{}: type string -> integer"},
    ),
    "a media type of a response is removed": (
        lambda it: it.operation(STATUS)["responses"]["200"].update(content={"text/plain": {}}),
        {f"{STATUS}: response: application/json is removed"},
    ),
    "a response header is not sent any more": (
        lambda it: it.operation(PLACE)["responses"]["201"]["headers"].pop("Location"),
        {f"{PLACE}: 201 has no header Location any more"},
    ),
    "an error is removed": (
        lambda it: it.problems(PLACE, "409").pop("orders.total_changed"),
        {f"{PLACE}: error orders.total_changed: is removed"},
    ),
    "an error has another status": (
        lambda it: it.problems(PLACE, "422").update(
            {"orders.total_changed": it.problems(PLACE, "409").pop("orders.total_changed")}
        ),
        {f"{PLACE}: error orders.total_changed: status 409 -> 422"},
    ),
    "errors have another schema": (
        lambda it: it.remove_field("Problem", "request_id"),
        {"errors: field request_id: is removed"},
    ),
    "a schema has another name": (
        lambda it: (
            it.schemas.update(CheckState=it.schemas.pop("CheckStatus")),
            it.field("CheckResult", "status").update({"$ref": "#/components/schemas/CheckState"}),
        ),
        {"schema CheckStatus: is removed"},
    ),
}

ALLOWED: dict[str, Change] = {
    "nothing": lambda _: None,
    "an operation is new": lambda it: it.paths.update({"/wishes": it.paths["/orders"]}),
    "a query parameter is new": lambda it: it.add_parameter(LIST, "shop", required=False),
    "a header becomes optional": lambda it: it.parameter(PLACE, "Idempotency-Key").update(
        required=False
    ),
    "a query parameter is wider": lambda it: it.parameter(LIST, "limit")["schema"].update(
        maximum=500
    ),
    "a request field is new": lambda it: it.schemas["CancelOrder"]["properties"].update(by=TEXT),
    "a request field takes a new value": lambda it: it.schemas["AdjustmentReason"]["enum"].append(
        "eaten"
    ),
    "a request may be longer": lambda it: it.field("CancelOrder", "reason").update(maxLength=900),
    "a media type of a body is new": lambda it: it.operation(PLACE)["requestBody"][
        "content"
    ].update({"application/yaml": {"schema": TEXT}}),
    "a response field is new": lambda it: it.schemas["OrderStatusView"]["properties"].update(
        reason=TEXT
    ),
    "a response field is never null": lambda it: it.schemas["OrderPage"]["properties"].update(
        next_cursor=TEXT
    ),
    "a response header is new": lambda it: it.operation(PLACE)["responses"]["201"][
        "headers"
    ].update({"Age": {"schema": TEXT}}),
    "an error is new": lambda it: it.problems(PLACE, "409").update({"orders.paused": {}}),
    "one more scope is enough": lambda it: it.operation(PLACE)["security"].append(
        {"oauth2": ["orders:manage"]}
    ),
    "no token is needed any more": lambda it: it.operation(STATUS).update(security=[]),
    "a schema is new": lambda it: it.schemas.update(Wish={"type": "object"}),
    "texts are different": lambda it: (
        it.operation(PLACE).update(summary="!", description="!", tags=["x"]),
        it.field("CancelOrder", "reason").update(title="Why", examples=["x"]),
        it.document["info"].update(description="!"),
    ),
}


@pytest.fixture(scope="module")
def document() -> Json:
    return build_document()


@pytest.mark.parametrize("name", BREAKS)
def test_breaking_changes_are_reported(document: Json, name: str) -> None:
    change, expected = BREAKS[name]
    changed = ChangedDocument(document)

    change(changed)

    assert set(incompatible_changes(document, changed.document)) == expected


@pytest.mark.parametrize("name", ALLOWED)
def test_compatible_changes_are_allowed(document: Json, name: str) -> None:
    changed = ChangedDocument(document)

    ALLOWED[name](changed)

    assert incompatible_changes(document, changed.document) == []


# The record


def test_api_is_compatible_with_the_recorded_document(document: Json) -> None:
    assert found_changes(document) == {}, HOW_TO_CHANGE


def test_recorded_document_is_current(document: Json) -> None:
    assert is_current(document), HOW_TO_RECORD


def test_recorded_document_does_not_depend_on_the_environment(
    document: Json, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKETHALL_METRICS", "off")
    monkeypatch.setenv("MARKETHALL_CONTEXTS", "users")

    assert as_text(build_document()) == as_text(document)


@pytest.fixture
def planted(document: Json, monkeypatch: pytest.MonkeyPatch) -> ChangedDocument:
    """The document that the command sees, in which a test plants a change."""
    changed = ChangedDocument(document)
    monkeypatch.setattr(check_openapi, "build_document", lambda: changed.document)
    return changed


def test_additive_change_makes_the_record_stale(
    planted: ChangedDocument, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded = main(["--record"], tmp_path)
    planted.schemas["Wish"] = {"type": "object"}

    codes = [main([], tmp_path), main(["--record"], tmp_path), main([], tmp_path)]

    assert (recorded, codes) == (0, [1, 0, 0])
    assert HOW_TO_RECORD in capsys.readouterr().out


def test_incompatible_change_is_recorded_only_if_it_is_accepted(
    planted: ChangedDocument, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--record"], tmp_path)
    del planted.paths["/orders"]

    codes = [main([], tmp_path), main(["--record"], tmp_path)]
    accepted = main(["--record", "--accept-incompatible"], tmp_path)

    assert (codes, accepted, main([], tmp_path)) == ([1, 1], 0, 0)
    assert f"incompatible with {__version__}:\n  GET /orders: is removed" in capsys.readouterr().out


def test_record_of_the_version_before_is_compared_too(
    planted: ChangedDocument, tmp_path: Path
) -> None:
    (tmp_path / "0.0.9.json").write_text(as_text(planted.document))
    (tmp_path / "9.0.0.json").write_text("of a later version, and not read")
    del planted.paths["/orders"]

    accepted = main(["--record", "--accept-incompatible"], tmp_path)

    assert accepted == 0
    assert list(found_changes(planted.document, tmp_path)) == ["0.0.9"]
    assert json.loads((tmp_path / f"{__version__}.json").read_text()) == planted.document
