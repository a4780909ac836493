from typing import Annotated, Final, Protocol

from fastapi import APIRouter, Depends, Response

from markethall.inventory.contract import ReservationView
from markethall.inventory.reservations.contract import ReservationQuery, Reservations
from markethall.inventory.stock.router import StockWriter
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.pagination import CursorInvalid, Page

router = APIRouter(tags=["inventory"])


class Services(Protocol):
    """The services that these routes call."""

    def reservations(self) -> Reservations: ...


_from_inventory: Final[FromContext[Services]] = FromContext("inventory")
ReservationsDep = Annotated[
    Reservations, Depends(_from_inventory(lambda container: container.reservations()))
]


@router.get(
    "/reservations",
    response_model=Page[ReservationView],
    summary="Reservations of an order",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_reservations(
    ctx: StockWriter,
    query: Annotated[ReservationQuery, from_query(ReservationQuery)],
    reservations: ReservationsDep,
) -> Response:
    """Return the reservations of an order, the oldest first."""
    return json_response(await reservations.list_reservations(ctx, query))
