"""Conditional requests: If-Match and If-None-Match (RFC 9110, section 13)."""

from typing import Any, Final

from fastapi import Request, Response
from pydantic import BaseModel

from markethall.shared.http.responses import json_response
from markethall.shared.kernel.errors import PreconditionRequired
from markethall.shared.kernel.etags import ExpectedVersions, content_digest, parse_if_match

# the headers that a 304 repeats, so that a cache can update its entry (RFC 9110, section 15.4.5)
HEADERS_OF_304: Final = frozenset({"etag", "cache-control", "vary"})


# for `responses` of routes that send an entity tag and read If-None-Match
NOT_MODIFIED_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    304: {"description": "`If-None-Match` names the current `ETag`"}
}


async def if_match(request: Request) -> ExpectedVersions:
    """Dependency: the versions that If-Match accepts.

    Raises PreconditionRequired, PreconditionFailed.
    """
    if "if-match" not in request.headers:
        raise PreconditionRequired
    # several header lines are one list (RFC 9110, section 5.3)
    return parse_if_match(", ".join(request.headers.getlist("if-match")))


async def if_match_optional(request: Request) -> ExpectedVersions:
    """Dependency: like `if_match`, but a request without the header accepts every version."""
    return await if_match(request) if "if-match" in request.headers else None


def json_with_etag(request: Request, dto: BaseModel) -> Response:
    """Return a 200, or a 304 if If-None-Match names the entity tag.

    The tag is a digest of the body. Use this only for DTOs that have no version.
    """
    response = json_response(dto)
    response.headers["etag"] = f'"{content_digest(response.body)}"'
    return apply_if_none_match(request, response)


def apply_if_none_match(request: Request, response: Response) -> Response:
    """Return the response, or a 304 if If-None-Match names its entity tag.

    See RFC 9110, section 13.1.2.
    """
    header = request.headers.get("if-none-match")
    if header is None:
        return response
    tag = response.headers.get("etag")
    if tag is None or not etag_matches(header, tag):
        return response
    headers = {name: value for name, value in response.headers.items() if name in HEADERS_OF_304}
    return Response(status_code=304, headers=headers)


def etag_matches(if_none_match: str, tag: str) -> bool:
    """Tell whether If-None-Match contains this tag.

    It uses the weak comparison of RFC 9110, section 8.8.3.2, which ignores `W/`.
    """
    if if_none_match == tag:
        return True
    tags = (part.strip().removeprefix("W/") for part in if_none_match.split(","))
    return if_none_match.strip() == "*" or tag in tags
