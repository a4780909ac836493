"""What the world may ask of orders."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from pydantic import WrapValidator

from markethall.orders.contract import (
    AnyAddress,
    CancelOrder,
    FulfilmentNotFound,
    FulfilmentView,
    FulfilOrder,
    InvalidTransition,
    OrderCurrencyMismatch,
    OrderNotFound,
    Orders,
    OrdersQuery,
    OrderState,
    OrderView,
    PlaceOrder,
    Quantity,
    Timeline,
    TooMuchToFulfil,
    TotalChanged,
    TotalTooLarge,
    WantedLine,
)
from markethall.shared import model
from markethall.shared.auth import ORDERS, ORDERS_MANAGE, allow
from markethall.shared.call import Call
from markethall.shared.errors import Forbidden, Invalid, Refusal, Unauthenticated, Unavailable
from markethall.shared.http import (
    MONEY,
    conditional,
    created,
    from_container,
    ok,
    once,
    problem_response,
    problems,
    ready,
)
from markethall.shared.idempotency import (
    InFlight,
    KeyInvalid,
    KeyMissing,
    Keys,
    LeaseLost,
    PayloadMismatch,
)
from markethall.shared.model import Id
from markethall.shared.pages import CursorInvalid, Page
from markethall.shared.versions import etag

router = APIRouter(tags=["orders"])

OrdersDep = Annotated[Orders, Depends(from_container("orders"))]
KeysDep = Annotated[Keys, Depends(from_container("orders_keys"))]
Customer = Annotated[Call, allow(ORDERS)]
Staff = Annotated[Call, allow(ORDERS_MANAGE)]
CustomerOrStaff = Annotated[Call, allow(ORDERS, ORDERS_MANAGE)]

_ALWAYS: tuple[type[Refusal], ...] = (Unauthenticated, Forbidden, Invalid, Unavailable)
_KEYED = (KeyInvalid, InFlight, LeaseLost, PayloadMismatch)
_PRIVATE = {"cache-control": "no-store"}


class PlaceOne(model.Body):
    """The short form: one line."""

    product_id: Id
    quantity: Quantity
    shipping_address: AnyAddress

    def in_full(self) -> PlaceOrder:
        line = WantedLine(product_id=self.product_id, quantity=self.quantity)
        return PlaceOrder(lines=(line,), shipping_address=self.shipping_address)


def _by_shape(value: Any, _: Any) -> PlaceOrder | PlaceOne:
    """One reading per shape, so that an error names the field and not both readings."""
    short = isinstance(value, dict) and "lines" not in value and "product_id" in value
    return (PlaceOne if short else PlaceOrder).model_validate(value)


PlaceBody = Annotated[
    PlaceOrder | PlaceOne,
    WrapValidator(_by_shape),
    Body(
        openapi_examples={
            "one line": {
                "value": {
                    "product_id": "0199c0de-0000-7000-8000-000000000001",
                    "quantity": 2,
                    "shipping_address": "Keizersgracht 1, 1015 CJ Amsterdam, NL",
                }
            },
            "several lines": {
                "value": {
                    "lines": [
                        {"product_id": "0199c0de-0000-7000-8000-000000000001", "quantity": 2},
                        {"product_id": "0199c0de-0000-7000-8000-000000000002", "quantity": 1},
                    ],
                    "shipping_address": {
                        "recipient": "Ada Lovelace",
                        "line1": "Keizersgracht 1",
                        "city": "Amsterdam",
                        "postal_code": "1015 CJ",
                        "country": "NL",
                    },
                    "expected_total": {"amount": 5997, "currency": "EUR"},
                }
            },
        }
    ),
]


# what a neighbour refuses passes through us: its code is known here, its contract is not
_PASSING: dict[int, tuple[str, ...]] = {
    403: ("users.inactive",),
    404: ("users.not_found", "inventory.product_not_found"),
    409: (
        "inventory.out_of_stock",
        "inventory.reservation_closed",
        "inventory.too_many_holds",
        "inventory.too_many_units",
    ),
}


def _with_passing(*refusals: type[Refusal]) -> dict[int | str, dict[str, Any]]:
    """For `responses`: our own refusals, and those of the neighbours that a client may see."""
    responses = problems(*refusals)
    for status, codes in _PASSING.items():
        entry = responses.setdefault(status, problem_response("Refused", {}))
        entry["description"] += ", " + ", ".join(f"`{code}`" for code in codes)
    return responses


@router.post(
    "/orders",
    status_code=201,
    response_model=OrderView,
    summary="Place an order",
    responses=_with_passing(
        *_ALWAYS, *_KEYED, KeyMissing, TotalChanged, OrderCurrencyMismatch, TotalTooLarge
    ),
)
async def place_order(
    request: Request, call: Customer, body: PlaceBody, orders: OrdersDep, keys: KeysDep
) -> Response:
    """Holds the goods and opens the payment; unpaid, the order expires at `expires_at`.

    Needs an `Idempotency-Key`: the same key gives the same order, however often it is sent.
    """
    command = body.in_full() if isinstance(body, PlaceOne) else body
    return await once(
        request,
        call,
        body,
        keys,
        lambda attempt: orders.place(call, command, attempt),
        created(lambda order: f"/orders/{order.order_id}"),
        required=True,
        kept_for=MONEY,
    )


@router.get(
    "/orders",
    response_model=Page[OrderView],
    summary="List orders",
    responses=problems(*_ALWAYS, CursorInvalid),
)
async def list_orders(
    call: CustomerOrStaff, query: Annotated[OrdersQuery, Query()], orders: OrdersDep
) -> Response:
    """A customer sees their own orders, staff sees all."""
    return ready(await orders.orders(call, query), headers=_PRIVATE)


@router.get(
    "/orders/{order_id}",
    response_model=OrderView,
    summary="One order",
    responses=problems(*_ALWAYS, OrderNotFound),
)
async def get_order(
    request: Request, call: CustomerOrStaff, order_id: Id, orders: OrdersDep
) -> Response:
    order = await orders.order(call, order_id)
    headers = _PRIVATE | {"etag": etag(order.version)}
    return conditional(request, ready(order, headers=headers))


@router.get(
    "/orders/{order_id}/status",
    response_model=OrderState,
    summary="How an order stands",
    responses=problems(*_ALWAYS, OrderNotFound),
)
async def get_order_status(call: CustomerOrStaff, order_id: Id, orders: OrdersDep) -> Response:
    return ready(await orders.status(call, order_id), headers=_PRIVATE)


@router.get(
    "/orders/{order_id}/timeline",
    response_model=Timeline,
    summary="What has happened to an order",
    responses=problems(*_ALWAYS, OrderNotFound),
)
async def get_order_timeline(call: CustomerOrStaff, order_id: Id, orders: OrdersDep) -> Response:
    """Every change with its actor, time and reason, the oldest first."""
    return ready(await orders.timeline(call, order_id), headers=_PRIVATE)


@router.post(
    "/orders/{order_id}/cancel",
    response_model=OrderView,
    summary="Cancel an order",
    responses=problems(*_ALWAYS, *_KEYED, OrderNotFound, InvalidTransition),
)
async def cancel_order(
    request: Request,
    *,
    call: CustomerOrStaff,
    order_id: Id,
    body: CancelOrder,
    orders: OrdersDep,
    keys: KeysDep,
) -> Response:
    """While nothing is shipped. The goods and the money go back at once, by event."""
    return await once(
        request,
        call,
        body,
        keys,
        lambda attempt: orders.cancel(call, order_id, body, attempt),
        ok,
        kept_for=MONEY,
    )


@router.post(
    "/orders/{order_id}/fulfilments",
    status_code=201,
    response_model=FulfilmentView,
    summary="Ship goods",
    responses=problems(*_ALWAYS, *_KEYED, OrderNotFound, InvalidTransition, TooMuchToFulfil),
)
async def fulfil_order(
    request: Request,
    *,
    call: Staff,
    order_id: Id,
    body: FulfilOrder,
    orders: OrdersDep,
    keys: KeysDep,
) -> Response:
    """Goods leave the house. Without `lines`: everything that is not fulfilled yet."""
    return await once(
        request,
        call,
        body,
        keys,
        lambda attempt: orders.fulfil(call, order_id, body, attempt),
        created(lambda fulfilment: f"/fulfilments/{fulfilment.fulfilment_id}"),
        kept_for=MONEY,
    )


@router.get(
    "/fulfilments/{fulfilment_id}",
    response_model=FulfilmentView,
    summary="One fulfilment",
    responses=problems(*_ALWAYS, FulfilmentNotFound),
)
async def get_fulfilment(call: CustomerOrStaff, fulfilment_id: Id, orders: OrdersDep) -> Response:
    return ready(await orders.fulfilment(call, fulfilment_id), headers=_PRIVATE)


@router.post(
    "/fulfilments/{fulfilment_id}/deliver",
    response_model=FulfilmentView,
    summary="Goods have arrived",
    responses=problems(*_ALWAYS, *_KEYED, FulfilmentNotFound, InvalidTransition),
)
async def deliver_fulfilment(
    request: Request, call: Staff, fulfilment_id: Id, orders: OrdersDep, keys: KeysDep
) -> Response:
    """With the last line delivered the order is completed."""
    return await once(
        request,
        call,
        None,
        keys,
        lambda attempt: orders.deliver(call, fulfilment_id, attempt),
        ok,
        kept_for=MONEY,
    )
