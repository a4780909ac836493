"""Keyset pagination with signed cursors."""

import base64
import hmac
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeVar
from uuid import UUID

from pydantic import Field, TypeAdapter
from pydantic_core import to_json

from markethall.shared.kernel.errors import DomainError
from markethall.shared.kernel.key_derivation import KeyPurpose, derive_key
from markethall.shared.kernel.model import Dto, QueryModel

T = TypeVar("T")
K = TypeVar("K")

_SIGNATURE_BYTES = 16


class TimeKeyset(NamedTuple):
    """The sort key of a list that is sorted by a timestamp and then by an id."""

    timestamp: datetime
    row_id: UUID


TIME_KEYSET: Final = TypeAdapter(TimeKeyset)


class CursorInvalid(DomainError):
    """The cursor is forged, or belongs to another list or another release."""

    code = "request.cursor_invalid"
    status = 422
    title = "The cursor is not one of this list"


class Page(Dto, Generic[T]):
    items: tuple[T, ...]
    next_cursor: str | None

    @classmethod
    def model_parametrized_name(cls, params: tuple[Any, ...]) -> str:
        """Return the name for the OpenAPI document: `OrderPage` for a page of `OrderView`."""
        return f"{params[0].__name__.removesuffix('View')}{cls.__name__}"


class PageQuery(QueryModel):
    """The query parameters that every list has. Unknown parameters are rejected."""

    limit: Annotated[int, Field(ge=1, le=100)] = 20
    # enough for a keyset with a name of maximum length in four-byte characters
    cursor: Annotated[str | None, Field(max_length=4000)] = None


class Cursors:
    """Encodes and decodes cursors.

    A cursor contains the keyset (the sort key of the last row of a page) as JSON. It is signed
    together with the name of the list, which includes the filters and the sort order. So a cursor
    is valid only for the list that it was made for.
    """

    def __init__(self, secret: bytes) -> None:
        self._key = derive_key(secret, KeyPurpose.CURSOR)

    def encode(self, list_name: str, keyset: Any) -> str:
        """Return the cursor of the page after this keyset."""
        body = to_json(keyset)
        return base64.urlsafe_b64encode(self._sign(list_name, body) + body).decode().rstrip("=")

    def decode(self, list_name: str, cursor: str | None, keyset_type: TypeAdapter[K]) -> K | None:
        """Return the keyset of a cursor, or None if the cursor is None. Raises CursorInvalid.

        The keyset is validated too, because an older release may have signed another keyset.
        """
        if cursor is None:
            return None
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
            signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
            if not hmac.compare_digest(signature, self._sign(list_name, body)):
                raise CursorInvalid
            return keyset_type.validate_json(body)
        except ValueError:
            raise CursorInvalid from None

    def build_page(
        self, list_name: str, rows: Sequence[T], limit: int, get_keyset: Callable[[T], Any]
    ) -> Page[T]:
        """Return a page. `rows` has one row more than `limit` if another page follows."""
        has_more = len(rows) > limit
        items = tuple(rows[:limit])
        return Page(
            items=items,
            next_cursor=self.encode(list_name, get_keyset(items[-1])) if has_more else None,
        )

    def _sign(self, list_name: str, body: bytes) -> bytes:
        signed = list_name.encode() + b"\x00" + body
        return hmac.digest(self._key, signed, "sha256")[:_SIGNATURE_BYTES]
