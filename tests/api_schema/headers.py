"""Compares the headers of real responses with the headers that the OpenAPI document declares."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from scripts.shared_responses import resolve_response

# headers of HTTP, of caches and for proxies, which clients handle without a declaration
_UNDECLARED: Final = frozenset(
    {
        "cache-control",
        "content-disposition",
        "content-length",
        "content-type",
        "content-security-policy",
        "pragma",
        "vary",
        "x-accel-buffering",
        "x-content-type-options",
    }
)
# sent only under a condition: with rate limits, for a repeated request, with some of the errors, or
# with translated texts
_CONDITIONAL: Final = frozenset(
    {"content-language", "idempotency-replayed", "ratelimit", "ratelimit-policy", "retry-after"}
)


def header_differences(
    document: Mapping[str, Any], label: str, status: int, headers: Mapping[str, Any]
) -> Iterator[str]:
    """Yield a line for each header that is sent but not declared, or declared but not sent.

    `label` is the operation, such as `GET /orders`. Names in `headers` are in lower case.
    """
    method, _, path = label.partition(" ")
    declared = document["paths"][path][method.lower()]["responses"].get(str(status))
    if declared is None:  # another check reports undeclared statuses
        return
    declared = resolve_response(document, declared)
    names = {name.lower() for name in declared.get("headers", ())}
    for name in sorted(set(headers) - names - _UNDECLARED):
        yield f"{label}: {status} sends {name}, which is not declared"
    for name in sorted(names - set(headers) - _CONDITIONAL):
        yield f"{label}: {status} declares {name}, which is not sent"
