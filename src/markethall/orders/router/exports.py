"""HTTP API of orders: the export as CSV."""

from typing import Annotated

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from markethall.orders.contract import OrderFilters
from markethall.orders.router.dependencies import OrderExportDep, Staff
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS
from markethall.shared.http.csv_responses import csv_response, documented_csv
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query

router = APIRouter(tags=["orders"])


@router.get(
    "/orders/export.csv",
    response_class=StreamingResponse,
    summary="Export orders",
    responses=problems(*AUTHENTICATED_ERRORS)
    | documented_csv("The lines of all orders that match"),
)
async def export_orders(
    ctx: Staff, filters: Annotated[OrderFilters, from_query(OrderFilters)], export: OrderExportDep
) -> StreamingResponse:
    """Return orders as CSV. Each row is one line of an order.

    The amounts and addresses of an order stand only in the row of its first line, so that the sum
    of a column counts each order once. Amounts are in major units. An apostrophe stands before a
    text that a spreadsheet would run as a formula.
    """
    return await csv_response(export.export_orders(ctx, filters), "orders.csv")
