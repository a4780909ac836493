"""Shared parts of the OpenAPI document: examples and responses of errors.

Most operations have the same errors. Repeated in each operation, they would be three quarters of
the document.
"""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from markethall.shared.http.problem_details import PROBLEM_MEDIA_TYPE

_RESPONSES_REF: Final = "#/components/responses/"
_EXAMPLES_REF: Final = "#/components/examples/"


def share_errors(document: dict[str, Any]) -> None:
    """Move the examples of errors, and their responses, to the components."""
    components = document["components"]
    examples = components.setdefault("examples", {})
    for responses, status in _places_of_errors(document):
        of_problem = responses[status]["content"][PROBLEM_MEDIA_TYPE]["examples"]
        for code, example in of_problem.items():
            examples[code] = example
            of_problem[code] = {"$ref": _EXAMPLES_REF + code}
    shared = components.setdefault("responses", {})
    for responses, status in _places_of_errors(document):
        name = _name_of(responses[status])
        shared[name] = responses[status]
        responses[status] = {"$ref": _RESPONSES_REF + name}
    for kind in ("examples", "responses"):
        components[kind] = dict(sorted(components[kind].items()))


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


def _places_of_errors(document: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for operations in document["paths"].values():
        for operation in operations.values():
            responses = operation["responses"]
            for status, response in responses.items():
                if PROBLEM_MEDIA_TYPE in response.get("content", {}):
                    yield responses, status


def _name_of(response: dict[str, Any]) -> str:
    """Return the first code of the response, and a digest of its content.

    The digest gives different responses different names, also in the documents of two processes,
    which a local cluster merges.
    """
    # errors of another context have no examples
    code = next(iter(response["content"][PROBLEM_MEDIA_TYPE]["examples"]), "problem")
    text = json.dumps(response, sort_keys=True)
    return f"{code}-{sha256(text.encode()).hexdigest()[:8]}"
