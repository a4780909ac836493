"""The responses that several operations of an OpenAPI document share."""

from collections.abc import Mapping
from typing import Any, Final

_RESPONSES_REF: Final = "#/components/responses/"


def resolve_response(document: Mapping[str, Any], response: dict[str, Any]) -> dict[str, Any]:
    """Return the response, or the shared response to which it refers."""
    if "$ref" not in response:
        return response
    name = response["$ref"].removeprefix(_RESPONSES_REF)
    found: dict[str, Any] = document["components"]["responses"][name]
    return found


def inline_responses(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with the shared responses in each operation that refers to them."""
    paths = {
        path: {
            method: {
                **operation,
                "responses": {
                    status: resolve_response(document, response)
                    for status, response in operation["responses"].items()
                },
            }
            for method, operation in operations.items()
        }
        for path, operations in document["paths"].items()
    }
    return {**document, "paths": paths}
