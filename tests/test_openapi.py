"""Test that the OpenAPI document has what generators of clients need."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from markethall.app import create_app
from scripts.shared_responses import inline_responses
from tests.test_app import memory_settings, policies, routes

Json = dict[str, Any]


@pytest.fixture(scope="module")
def document() -> Json:
    return inline_responses(create_app(memory_settings()).app.openapi())


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    """Yield each operation with its name, such as `get /orders`."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def test_openapi_is_complete(document: Json) -> None:

    assert document["openapi"].startswith("3.1")
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert operation["operationId"], name
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert "application/problem+json" in response["content"], f"{name} {status}"
        if "requestBody" in operation and "/payments/webhooks" not in name:
            assert {"413", "422"} <= set(operation["responses"]), name
        if operation["security"] and {} not in operation["security"]:
            assert {"401", "403"} <= set(operation["responses"]), name


def test_openapi_documents_the_policy_of_each_route(document: Json) -> None:
    app = create_app(memory_settings())
    found = {
        f"{method.lower()} {route.path_format}": policies(route.dependant)[0]
        for route in routes(app)
        for method in route.methods or ()
        if route.include_in_schema
    }

    security = {name: operation["security"] for name, operation in operations(document)}

    assert security.keys() == found.keys()
    for name, policy in found.items():
        accepted = [policy.scope, *policy.alternative_scopes] if policy.scope else []
        also = [policy.also_requires] if policy.also_requires else []
        optional = [[], [policy.optional_scope]] if policy.optional_scope else []
        scopes = [one.get("oauth2", []) for one in security[name]]
        assert scopes == optional + [[scope, *also] for scope in accepted], name


def test_openapi_describes_every_tag(document: Json) -> None:
    used = {tag for _, operation in operations(document) for tag in operation["tags"]}

    assert {tag["name"] for tag in document["tags"]} == used
    assert all(tag["description"] for tag in document["tags"])


def test_openapi_names_the_scopes_of_operations(document: Json) -> None:
    security = {name: operation["security"] for name, operation in operations(document)}

    assert security["post /token"] == []
    assert security["post /orders"] == [{"oauth2": ["orders"]}]
    assert security["get /orders"] == [{"oauth2": ["orders"]}, {"oauth2": ["orders:manage"]}]
    assert security["post /imports"] == [{"oauth2": ["catalogue:write", "stock:write"]}]
    assert security["get /products/{product_id}"] == [{}, {"oauth2": ["catalogue:write"]}]
    flow = document["components"]["securitySchemes"]["oauth2"]["flows"]["password"]
    used = {
        scope
        for requirements in security.values()
        for requirement in requirements
        for scope in requirement.get("oauth2", ())
    }
    assert used == set(flow["scopes"])


def test_openapi_documents_conditional_headers(document: Json) -> None:
    paths = document["paths"]
    tagged = {path for path, ops in paths.items() if "ETag" in _headers_of_201(ops)}
    required = {
        (method, path, parameter["required"])
        for path, operations in paths.items()
        for method, operation in operations.items()
        for parameter in operation.get("parameters", ())
        if parameter["name"] == "If-Match"
    }

    assert tagged >= {"/users", "/orders", "/products", "/categories", "/families", "/warehouses"}
    assert ("patch", "/products/{product_id}", True) in required
    assert ("patch", "/users/me", False) in required
    assert len(required) >= 15
    # the response for a new guest contains tokens, but no resource
    created = {path for path, ops in paths.items() if _created_response(ops)} - {"/guests"}
    assert all("Location" in _headers_of_201(paths[path]) for path in created)


def test_openapi_names_operations_for_generated_clients(document: Json) -> None:
    ids = [operation["operationId"] for _, operation in operations(document)]

    assert len(set(ids)) == len(ids)
    assert [name for name in ids if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)] == []


def test_openapi_names_schemas_for_generated_clients(document: Json) -> None:
    schemas = document["components"]["schemas"]
    # only the parts below the top level are searched, because an enumeration or union at the top
    # level has the name of its schema
    parts = [_without_choices(schema) for schema in schemas.values()]

    assert (
        list(_inline_choices([parts, document["paths"], document["components"]["headers"]])) == []
    )
    assert [name for name in schemas if "__" in name] == []
    assert {"AnyAddress", "Country", "Currency", "OrderRequest", "OrderSort"} <= schemas.keys()


def test_schema_names_are_short_and_unique(document: Json) -> None:
    schemas = document["components"]["schemas"]
    contents = [json.dumps({**schema, "title": ""}, sort_keys=True) for schema in schemas.values()]

    assert [name for name in schemas if not re.fullmatch(r"([A-Z][a-z]*)+", name)] == []
    assert [name for name in schemas if name.endswith(("Input", "Output"))] == []
    assert [name for name, schema in schemas.items() if schema.get("title", name) != name] == []
    assert {"Money", "Problem", "OrderPage", "ProductPage", "UserPage"} <= schemas.keys()
    # schemas with only one field may be equal
    assert [
        text for text, count in Counter(contents).items() if count > 1 and len(text) > 300
    ] == []


def test_responses_require_the_fields_that_are_always_sent(document: Json) -> None:
    schemas = document["components"]["schemas"]

    assert set(schemas["PaymentView"]["required"]) == set(schemas["PaymentView"]["properties"])
    assert "type" in schemas["RedirectAction"]["required"]
    assert "errors" not in schemas["Problem"]["required"]
    assert "note" not in schemas["Adjustment"].get("required", ())
    assert "x-omits-null" not in json.dumps(document)


def test_limits_of_integers_are_integers(document: Json) -> None:
    quantity = document["components"]["schemas"]["OrderLineRequest"]["properties"]["quantity"]

    assert json.dumps(quantity["maximum"]) == "999"


def _without_choices(schema: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name not in {"enum", "anyOf", "oneOf"}}


def _inline_choices(part: Any) -> Iterator[Any]:
    """Yield the enumerations and unions without a name. A nullable single type is not a union."""
    if isinstance(part, dict):
        types = [kind for kind in part.get("anyOf", ()) if kind != {"type": "null"}]
        if "enum" in part or len(types) > 1:
            yield part
    if isinstance(part, dict | list):
        for child in part.values() if isinstance(part, dict) else part:
            yield from _inline_choices(child)


def test_openapi_documents_headers_of_requests(document: Json) -> None:
    operations = {
        (method, path): {
            parameter["name"]: parameter["required"]
            for parameter in operation.get("parameters", ())
            if parameter["in"] == "header"
        }
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }

    assert operations["post", "/orders"] == {"Idempotency-Key": True}
    assert operations["post", "/users"] == {"Idempotency-Key": False}
    assert operations["get", "/orders/{order_id}"] == {"If-None-Match": False}
    assert operations["patch", "/products/{product_id}"] == {"If-Match": True}
    assert sum("Idempotency-Key" in headers for headers in operations.values()) >= 15
    assert sum("If-None-Match" in headers for headers in operations.values()) >= 15


def test_openapi_documents_headers_of_responses(document: Json) -> None:
    place_order = document["paths"]["/orders"]["post"]["responses"]
    get_order = document["paths"]["/orders/{order_id}"]["get"]["responses"]
    limits = {"RateLimit", "RateLimit-Policy", "X-Request-ID"}

    assert set(place_order["201"]["headers"]) == limits | {
        "Location", "ETag", "Idempotency-Replayed",
    }  # fmt: skip
    assert set(place_order["429"]["headers"]) == limits | {"Retry-After"}
    assert set(place_order["503"]["headers"]) == limits | {"Retry-After"}
    assert "Retry-After" in place_order["409"]["headers"]
    assert set(get_order["200"]["headers"]) == set(get_order["304"]["headers"]) == limits | {"ETag"}
    assert set(document["components"]["headers"]) >= limits | {"Location", "ETag", "Retry-After"}


def _headers_of_201(operations: Any) -> Any:
    return _created_response(operations).get("headers", {})


def _created_response(operations: Any) -> Any:
    return operations.get("post", {}).get("responses", {}).get("201", {})


def test_openapi_has_examples_for_every_body(document: Json) -> None:

    for name, schema in document["components"]["schemas"].items():
        if schema.get("additionalProperties") is False:  # true only for request bodies
            assert "example" in str(schema["properties"]) or "$ref" in str(schema), name


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        (
            "post /orders/{order_id}/fulfilments",
            {
                "orders.edit_open",
                "inventory.out_of_stock",
                "inventory.product_not_found",
                "inventory.reservation_closed",
            },
        ),
        ("post /orders/{order_id}/cancel", {"orders.edit_open"}),
        (
            "patch /orders/{order_id}",
            {"orders.edit_open", "orders.currency_mismatch", "inventory.product_not_found"},
        ),
    ],
)
def test_errors_of_changes_of_paid_orders_are_documented(
    document: Json, name: str, codes: set[str]
) -> None:
    responses = dict(operations(document))[name]["responses"].values()

    descriptions = " ".join(response["description"] for response in responses)

    assert codes <= set(re.findall(r"`([a-z._]+)`", descriptions))
