"""Routes of the comparisons with the reports of payment providers."""

from typing import Annotated

from fastapi import APIRouter, Response

from markethall.payments.contract.errors import ReconciliationNotFound
from markethall.payments.contract.reconciliation import (
    DifferenceQuery,
    DifferenceView,
    ReconciliationQuery,
    ReconciliationView,
)
from markethall.payments.router.dependencies import ReconciliationsDep, Staff
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import CursorInvalid, Page

router = APIRouter(tags=["payments"])


@router.get(
    "/ledger/reconciliations",
    response_model=Page[ReconciliationView],
    summary="List reconciliations",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_reconciliations(
    ctx: Staff,
    query: Annotated[ReconciliationQuery, from_query(ReconciliationQuery)],
    reconciliations: ReconciliationsDep,
) -> Response:
    """List the daily comparisons with the reports of the providers, the newest day first."""
    return json_response(await reconciliations.list_reconciliations(ctx, query))


@router.get(
    "/ledger/reconciliations/{reconciliation_id}",
    response_model=ReconciliationView,
    summary="Get a reconciliation",
    responses=problems(*AUTHENTICATED_ERRORS, ReconciliationNotFound),
)
async def get_reconciliation(
    ctx: Staff, reconciliation_id: Id, reconciliations: ReconciliationsDep
) -> Response:
    """Return a comparison with a report of the provider, with its counts."""
    return json_response(await reconciliations.get_reconciliation(ctx, reconciliation_id))


@router.get(
    "/ledger/reconciliations/{reconciliation_id}/differences",
    response_model=Page[DifferenceView],
    summary="List the differences of a reconciliation",
    responses=problems(*AUTHENTICATED_ERRORS, ReconciliationNotFound, CursorInvalid),
)
async def list_reconciliation_differences(
    ctx: Staff,
    reconciliation_id: Id,
    query: Annotated[DifferenceQuery, from_query(DifferenceQuery)],
    reconciliations: ReconciliationsDep,
) -> Response:
    """List the differences: first those of succeeded operations by their time, then the others."""
    return json_response(await reconciliations.list_differences(ctx, reconciliation_id, query))
