"""The dependencies of the routes of payments, and the fields that their requests share."""

from typing import Annotated, Final, Protocol

from fastapi import Depends
from pydantic import Field

from markethall.payments.contract.api import ManualRefunds, PaymentApi
from markethall.payments.contract.ledger import LedgerApi
from markethall.payments.contract.reconciliation import Reconciliations
from markethall.shared.http.dependencies import FromContext
from markethall.shared.http.idempotent_routes import IdempotencyRunner, idempotency_runner
from markethall.shared.http.route_policies import public, require_scope
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.model import MAX_AMOUNT, Int, RequestModel
from markethall.shared.kernel.money import Currency
from markethall.shared.kernel.scopes import ONE_ORDER, PAYMENTS, PAYMENTS_MANAGE


class Services(Protocol):
    def payment_api(self) -> PaymentApi: ...

    def ledger(self) -> LedgerApi: ...

    def reconciliations(self) -> Reconciliations: ...

    def manual_refunds(self) -> ManualRefunds: ...


_from_payments: Final[FromContext[Services]] = FromContext("payments")
PaymentApiDep = Annotated[
    PaymentApi, Depends(_from_payments(lambda container: container.payment_api()))
]
LedgerDep = Annotated[LedgerApi, Depends(_from_payments(lambda container: container.ledger()))]
IdempotencyDep = Annotated[IdempotencyRunner, Depends(idempotency_runner("payments"))]
ReconciliationsDep = Annotated[
    Reconciliations, Depends(_from_payments(lambda container: container.reconciliations()))
]
ManualRefundsDep = Annotated[
    ManualRefunds, Depends(_from_payments(lambda container: container.manual_refunds()))
]
Anyone = Annotated[CallContext, public()]
Owner = Annotated[CallContext, require_scope(PAYMENTS)]
Staff = Annotated[CallContext, require_scope(PAYMENTS_MANAGE)]
OwnerOrStaff = Annotated[CallContext, require_scope(PAYMENTS, PAYMENTS_MANAGE)]
# the owner, the holder of an order token, or staff with a method of the provider `manual`
Payer = Annotated[CallContext, require_scope(PAYMENTS, PAYMENTS_MANAGE, ONE_ORDER)]
PaymentViewer = Annotated[CallContext, require_scope(PAYMENTS, PAYMENTS_MANAGE, ONE_ORDER)]


class PositiveMoney(RequestModel):
    amount: Annotated[Int, Field(ge=1, le=MAX_AMOUNT, examples=[500])]
    currency: Currency
