"""FastAPI dependencies of the routes of orders."""

from typing import Annotated, Final, Protocol

from fastapi import Depends

from markethall.orders.contract import (
    Fulfilments,
    OrderChanges,
    OrderEdits,
    OrderExport,
    OrderLookups,
    Orders,
    OrderStatusStreams,
)
from markethall.orders.invoices.contract import Invoices
from markethall.orders.returns.contract import Returns
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import (
    IDEMPOTENCY_RETENTION_EXTENDED,
    IdempotencyRunner,
    idempotency_runner,
)
from markethall.shared.http.route_policies import CardCheck, require_scope
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.scopes import ONE_ORDER, ORDERS, ORDERS_MANAGE


class Services(Protocol):
    def orders(self) -> Orders: ...

    def fulfilments(self) -> Fulfilments: ...

    def order_changes(self) -> OrderChanges: ...

    def order_export(self) -> OrderExport: ...

    def invoices(self) -> Invoices: ...

    def order_lookups(self) -> OrderLookups: ...

    def status_streams(self) -> OrderStatusStreams: ...

    def order_edits(self) -> OrderEdits: ...

    def returns(self) -> Returns: ...


_from_orders: Final[FromContext[Services]] = FromContext("orders")
OrdersDep = Annotated[Orders, Depends(_from_orders(lambda container: container.orders()))]
FulfilmentsDep = Annotated[
    Fulfilments, Depends(_from_orders(lambda container: container.fulfilments()))
]
OrderChangesDep = Annotated[
    OrderChanges, Depends(_from_orders(lambda container: container.order_changes()))
]
OrderEditsDep = Annotated[
    OrderEdits, Depends(_from_orders(lambda container: container.order_edits()))
]
IdempotencyDep = Annotated[
    IdempotencyRunner, Depends(idempotency_runner("orders", IDEMPOTENCY_RETENTION_EXTENDED))
]
OrderExportDep = Annotated[
    OrderExport, Depends(_from_orders(lambda container: container.order_export()))
]
OrderLookupsDep = Annotated[
    OrderLookups, Depends(_from_orders(lambda container: container.order_lookups()))
]
InvoicesDep = Annotated[Invoices, Depends(_from_orders(lambda container: container.invoices()))]
StatusStreamsDep = Annotated[
    OrderStatusStreams, Depends(_from_orders(lambda container: container.status_streams()))
]
ReturnsDep = Annotated[Returns, Depends(_from_orders(lambda container: container.returns()))]
Owner = Annotated[CallContext, require_scope(ORDERS)]
Staff = Annotated[CallContext, require_scope(ORDERS_MANAGE)]
# the tracking numbers of some carriers have the form of card numbers
Shipper = Annotated[
    CallContext,
    require_scope(
        ORDERS_MANAGE, card_check=CardCheck(unchecked_fields=frozenset({"tracking_number"}))
    ),
]
OwnerOrStaff = Annotated[CallContext, require_scope(ORDERS, ORDERS_MANAGE)]
# also allows the holder of a token of the order
OrderViewer = Annotated[CallContext, require_scope(ORDERS, ORDERS_MANAGE, ONE_ORDER)]
