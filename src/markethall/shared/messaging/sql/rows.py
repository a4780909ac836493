from typing import TYPE_CHECKING

from markethall.shared.messaging.events import EventEnvelope

if TYPE_CHECKING:
    from asyncpg.protocol import Record


def envelope_from_row(row: "Record", seq: int) -> EventEnvelope:
    fields = {name: row[name] for name in EventEnvelope.model_fields if name != "seq"}
    return EventEnvelope(**fields, seq=seq)
