"""Routes of the ledger."""

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import BaseModel

from markethall.payments.contract import (
    LedgerAccountBalance,
    LedgerReport,
    PostingQuery,
    PostingView,
)
from markethall.payments.router.dependencies import (
    LedgerDep,
    Staff,
)
from markethall.shared.http.common_errors import AUTHENTICATED_ERRORS
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import json_response
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
    "/ledger/accounts",
    response_model=LedgerAccountsView,
    summary="List account balances",
    responses=problems(*AUTHENTICATED_ERRORS),
)
async def list_ledger_accounts(ctx: Staff, ledger: LedgerDep) -> Response:
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
    differ.
    """
    return json_response(await ledger.verify(ctx))
