"""Keyset pages and their tamper-evident cursors."""

import base64
import hmac
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.model import Dto

T = TypeVar("T")


class CursorInvalid(DomainError):
    """Made by somebody else, or for another list. Details: none."""

    code = "request.cursor_invalid"
    status = 422
    title = "The cursor is not one of this list"


class Page(Dto, Generic[T]):
    items: tuple[T, ...]
    next_cursor: str | None


class PageQuery(BaseModel):
    """The query of every list: unknown parameters are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    # long enough for a position that holds the longest name, in the longest letters
    cursor: Annotated[str | None, Field(max_length=4000)] = None


class Cursors:
    """Signs the position where a page ended, together with the list that it belongs to."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, b"markethall cursor", "sha256")

    def encode(self, list_name: str, position: Sequence[Any]) -> str:
        """`listing` names the list, its sort and filters; `position` is JSON."""
        body = json.dumps(position, separators=(",", ":"), ensure_ascii=False).encode()
        return base64.urlsafe_b64encode(self._sign(list_name, body) + body).decode().rstrip("=")

    def decode(self, list_name: str, cursor: str | None) -> list[Any] | None:
        """Raises CursorInvalid."""
        if cursor is None:
            return None
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        except ValueError:
            raise CursorInvalid from None
        tag, body = raw[:16], raw[16:]
        if not hmac.compare_digest(tag, self._sign(list_name, body)):
            raise CursorInvalid
        position: list[Any] = json.loads(body)
        return position

    def build_page(
        self, list_name: str, rows: Sequence[T], limit: int, position: Callable[[T], Sequence[Any]]
    ) -> Page[T]:
        """`rows` holds one more than `limit` when there is a next page."""
        has_more = len(rows) > limit
        items = tuple(rows[:limit])
        return Page(
            items=items,
            next_cursor=self.encode(list_name, position(items[-1])) if has_more else None,
        )

    def _sign(self, list_name: str, body: bytes) -> bytes:
        return hmac.digest(self._key, list_name.encode() + b"\x00" + body, "sha256")[:16]
