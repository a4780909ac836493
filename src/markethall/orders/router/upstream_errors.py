"""OpenAPI responses with errors of other contexts that reach the client.

Codes, not classes, because the router may not import the contracts of other contexts.
"""

from collections.abc import Mapping
from typing import Any

from markethall.shared.http.problem_details import openapi_problem_response, problems
from markethall.shared.kernel.errors import DomainError


def with_upstream_errors(
    codes_by_status: Mapping[int, tuple[str, ...]], *errors: type[DomainError]
) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI responses for these errors and for these codes of other contexts."""
    responses = problems(*errors)
    for status, codes in codes_by_status.items():
        entry = responses.setdefault(status, openapi_problem_response("Refused", {}))
        entry["description"] += ", " + ", ".join(f"`{code}`" for code in codes)
    return responses
