from typing import Final
from uuid import UUID

from pydantic import TypeAdapter

from markethall.inventory.contract import ReservationView
from markethall.inventory.reservations.contract import ReservationQuery
from markethall.inventory.reservations.ports import ReadStore
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import Cursors, Page
from markethall.shared.persistence.database import ReadDatabase

_RESERVATION_KEYSET: Final = TypeAdapter(UUID)


class ReservationService:
    """Implementation of `Reservations`."""

    def __init__(self, database: ReadDatabase[ReadStore], cursors: Cursors, clock: Clock) -> None:
        self._database = database
        self._cursors = cursors
        self._clock = clock

    async def list_reservations(
        self, ctx: CallContext, query: ReservationQuery
    ) -> Page[ReservationView]:
        name = f"reservations:{query.order_id}"
        after = self._cursors.decode(name, query.cursor, _RESERVATION_KEYSET)
        async with self._database.read_session() as reads:
            reservations = await reads.list_order_reservations(
                query.order_id, after, query.limit + 1
            )
        now = self._clock()
        views = [reservation.to_view(now) for reservation in reservations]
        return self._cursors.build_page(name, views, query.limit, lambda row: row.reservation_id)
