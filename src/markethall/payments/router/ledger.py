"""Routes of the ledger."""

from typing import Annotated

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from markethall.payments.contract.errors import ReconciliationNotFound
from markethall.payments.contract.ledger import (
    LedgerAccountBalance,
    LedgerReport,
    PostingFilters,
    PostingQuery,
    PostingView,
    TrialBalance,
    TrialBalanceQuery,
)
from markethall.payments.contract.reconciliation import (
    DifferenceQuery,
    DifferenceView,
    ReconciliationQuery,
    ReconciliationView,
)
from markethall.payments.router.dependencies import LedgerDep, ReconciliationsDep, Staff
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS
from markethall.shared.http.csv_responses import csv_response, documented_csv
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.money import AmountOutOfRange
from markethall.shared.kernel.pagination import CursorInvalid, Page

router = APIRouter(tags=["payments"])


class LedgerAccountsView(BaseModel):
    items: tuple[LedgerAccountBalance, ...]


@router.get(
    "/transactions",
    response_model=Page[PostingView],
    summary="List ledger postings",
    responses=problems(*AUTHENTICATED_ERRORS, CursorInvalid),
)
async def list_transactions(
    ctx: Staff, query: Annotated[PostingQuery, from_query(PostingQuery)], ledger: LedgerDep
) -> Response:
    """List the postings of the ledger, the newest first. Debits are positive, credits negative."""
    return json_response(await ledger.list_postings(ctx, query))


@router.get(
    "/transactions/export.csv",
    response_class=StreamingResponse,
    summary="Export ledger postings",
    responses=problems(*AUTHENTICATED_ERRORS) | documented_csv("All postings that match"),
)
async def export_transactions(
    ctx: Staff, filters: Annotated[PostingFilters, from_query(PostingFilters)], ledger: LedgerDep
) -> Response:
    """Return postings as CSV, the oldest first. Each row is one entry of a posting.

    Amounts are in major units; debits and credits have columns of their own. An apostrophe stands
    before a text that a spreadsheet would run as a formula.
    """
    return await csv_response(ledger.export_postings(ctx, filters), "transactions.csv")


@router.get(
    "/ledger/trial-balance",
    response_model=TrialBalance,
    summary="Get the trial balance of a period",
    responses=problems(*AUTHENTICATED_ERRORS, AmountOutOfRange),
)
async def get_trial_balance(
    ctx: Staff,
    query: Annotated[TrialBalanceQuery, from_query(TrialBalanceQuery)],
    ledger: LedgerDep,
) -> Response:
    """Return the opening balance, debits, credits and closing balance of each account.

    The days are days of UTC. Without `end_date`, the period ends today; without `start_date`, it is
    one day.
    """
    return json_response(await ledger.get_trial_balance(ctx, query))


@router.get(
    "/ledger/accounts",
    response_model=LedgerAccountsView,
    summary="List account balances",
    responses=problems(*AUTHENTICATED_ERRORS, AmountOutOfRange),
)
async def list_ledger_accounts(ctx: Staff, ledger: LedgerDep) -> Response:
    """Return the balance of each account, by currency."""
    return json_response(LedgerAccountsView(items=await ledger.list_account_balances(ctx)))


@router.get(
    "/ledger/verify",
    response_model=LedgerReport,
    summary="Verify the ledger",
    responses=problems(*AUTHENTICATED_ERRORS),
)
async def verify_ledger(ctx: Staff, ledger: LedgerDep) -> Response:
    """Check the sums, the hash chains and the amounts of the payments.

    Also build the ledger again from the operations, and compare. `findings` names the rows that
    differ. Concurrent requests share one verification. The checks for which a large ledger leaves
    no time are `unfinished_checks`: `markethall ledger verify --rebuild` has no time limit.
    """
    return json_response(await ledger.verify(ctx))


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
