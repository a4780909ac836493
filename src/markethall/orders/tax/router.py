"""HTTP API of tax rates."""

from typing import Annotated, Final, Protocol

from fastapi import APIRouter, Depends, Request, Response

from markethall.orders.configuration.contract import TooManyItems
from markethall.orders.configuration.router import (
    Anyone,
    ExpectedVersionsDep,
    IdempotencyDep,
    Staff,
)
from markethall.orders.tax.contract import (
    NewTaxRate,
    TaxRateChange,
    TaxRateNotFound,
    TaxRates,
    TaxRateTaken,
    TaxRateView,
)
from markethall.shared.http.common_errors import (
    AUTHENTICATED_ERRORS,
    BODY_ERRORS,
    IDEMPOTENCY_ERRORS,
    VERSION_ERRORS,
)
from markethall.shared.http.conditional_requests import NOT_MODIFIED_RESPONSE, apply_if_none_match
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import created_response
from markethall.shared.http.problem_details import problems
from markethall.shared.http.query_parameters import from_query
from markethall.shared.http.responses import public_response, versioned_response
from markethall.shared.kernel.errors import Unavailable, ValidationFailed
from markethall.shared.kernel.model import Id
from markethall.shared.kernel.pagination import CursorInvalid, Page, PageQuery

router = APIRouter(prefix="/tax-rates", tags=["shop"])


class Services(Protocol):
    def tax_rates(self) -> TaxRates: ...


_from_orders: Final[FromContext[Services]] = FromContext("orders")
TaxRatesDep = Annotated[TaxRates, Depends(_from_orders(lambda container: container.tax_rates()))]


@router.get(
    "",
    response_model=Page[TaxRateView],
    summary="Tax rates",
    responses=problems(ValidationFailed, CursorInvalid, Unavailable),
)
async def list_tax_rates(
    ctx: Anyone, query: Annotated[PageQuery, from_query(PageQuery)], tax_rates: TaxRatesDep
) -> Response:
    """Return tax rates in the order in which they were created."""
    return public_response(await tax_rates.list_page(ctx, query))


@router.get(
    "/{tax_rate_id}",
    response_model=TaxRateView,
    summary="A tax rate",
    responses=problems(TaxRateNotFound, ValidationFailed, Unavailable) | NOT_MODIFIED_RESPONSE,
)
async def get_tax_rate(
    request: Request, ctx: Anyone, tax_rate_id: Id, tax_rates: TaxRatesDep
) -> Response:
    """Return a tax rate."""
    view = await tax_rates.get(ctx, tax_rate_id)
    return apply_if_none_match(request, versioned_response(view, is_public=True))


@router.post(
    "",
    status_code=201,
    response_model=TaxRateView,
    summary="Add a tax rate",
    responses=problems(
        *AUTHENTICATED_ERRORS, *BODY_ERRORS, *IDEMPOTENCY_ERRORS, TaxRateTaken, TooManyItems
    ),
)
async def create_tax_rate(
    ctx: Staff, body: NewTaxRate, tax_rates: TaxRatesDep, idempotency: IdempotencyDep
) -> Response:
    """Create a tax rate."""
    return await idempotency.run(
        ctx,
        body,
        lambda attempt: tax_rates.create(ctx, body, attempt),
        created_response(lambda made: f"/tax-rates/{made.tax_rate_id}"),
    )


@router.patch(
    "/{tax_rate_id}",
    response_model=TaxRateView,
    summary="Change a tax rate",
    responses=problems(
        *AUTHENTICATED_ERRORS, *BODY_ERRORS, *VERSION_ERRORS, TaxRateNotFound, TaxRateTaken
    ),
)
async def change_tax_rate(
    ctx: Staff,
    tax_rate_id: Id,
    expected_versions: ExpectedVersionsDep,
    body: TaxRateChange,
    tax_rates: TaxRatesDep,
) -> Response:
    """Change a tax rate by a JSON merge patch (RFC 7396).

    Orders that exist stay unchanged.
    """
    view = await tax_rates.change(ctx, tax_rate_id, body, expected_versions)
    return versioned_response(view)


@router.delete(
    "/{tax_rate_id}",
    status_code=204,
    response_class=Response,
    summary="Delete a tax rate",
    responses=problems(*AUTHENTICATED_ERRORS, *VERSION_ERRORS, TaxRateNotFound),
)
async def delete_tax_rate(
    ctx: Staff, tax_rate_id: Id, expected_versions: ExpectedVersionsDep, tax_rates: TaxRatesDep
) -> Response:
    """Delete a tax rate. Orders that exist stay unchanged."""
    await tax_rates.delete(ctx, tax_rate_id, expected_versions)
    return Response(status_code=204)
