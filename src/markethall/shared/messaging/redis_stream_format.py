"""Names, entries and ids of the Redis streams that carry events."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from pydantic import ValidationError

from markethall.shared.messaging.event_signature import EVENT_FIELD
from markethall.shared.messaging.events import EventEnvelope
from markethall.shared.persistence.redis_client import ErrorReply, RedisUnavailable

Fields = Mapping[bytes, bytes]
# The id and the fields of an entry. The fields are None if the entry was trimmed from the stream.
StreamEntry = tuple[bytes, Fields | None]


def stream_name(publisher: str) -> str:
    return f"markethall:events:{publisher}"


def parse_envelope(fields: Fields | None) -> EventEnvelope | None:
    """Return the envelope of an entry, or None if the entry has no valid envelope."""
    try:
        return EventEnvelope.model_validate_json((fields or {})[EVENT_FIELD])
    except (ValidationError, KeyError):
        return None


def envelope_of_unreadable_entry(stream: str, entry_id: bytes, fields: Fields) -> EventEnvelope:
    """Return an envelope with the raw fields as payload.

    Its event id is derived from the stream and the entry id, so that an entry that is read twice
    has the same event id.
    """
    event_id = uuid5(NAMESPACE_URL, f"{stream}/{entry_id.decode()}")
    milliseconds, _ = parse_entry_id(entry_id)
    return EventEnvelope(
        event_id=event_id,
        type="unreadable",
        version=0,
        key=event_id,
        payload=repr(dict(fields))[:10_000].replace("\\x00", ""),
        occurred_at=datetime.fromtimestamp(milliseconds / 1000, UTC),
        request_id="",
    )


def parse_entries(reply: Any) -> Sequence[StreamEntry]:
    """Parse the reply of XREADGROUP, which is None after the block timeout."""
    return [parse_entry(item) for _, items in reply or () for item in items]


def parse_entry(item: Any) -> StreamEntry:
    entry_id, fields = item
    return entry_id, fields or None


def parse_group_info(row: Sequence[Any]) -> dict[str, Any]:
    """Parse a row of XINFO GROUPS, which in RESP2 is a flat list of names and values."""
    pairs = zip(row[::2], row[1::2], strict=True)
    fields = {name.decode(): value for name, value in pairs}
    return {**fields, "name": fields["name"].decode()}


def parse_entry_id(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, count = entry_id.partition(b"-")
    return int(milliseconds), int(count)


def previous_entry_id(position: tuple[int, int]) -> tuple[int, int]:
    milliseconds, count = position
    return (milliseconds, count - 1) if count else (milliseconds - 1, 2**63)


def next_entry_id(entry_id: bytes) -> str:
    milliseconds, count = parse_entry_id(entry_id)
    return f"{milliseconds}-{count + 1}"


def is_response_error(error: RedisUnavailable, text: str) -> bool:
    """Return whether Redis has answered with an error that contains the text."""
    return isinstance(error.__cause__, ErrorReply) and text in str(error)
