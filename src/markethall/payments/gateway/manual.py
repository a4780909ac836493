"""The provider of money that arrives outside of the shop: bank transfer, invoice, cash on delivery.

There is no external service, so the gateway keeps no state: it computes every outcome from the
request. The customer gets instructions; staff mark the payment as paid, and pay refunds by hand.
"""

from collections.abc import Sequence
from datetime import timedelta

from markethall.payments.contract.api import AwaitTransferAction
from markethall.payments.contract.statuses import OperationKind
from markethall.payments.domain.operation import ActionRequired, Failed, Outcome
from markethall.payments.gateway.manual_manifest import ManualMethod
from markethall.payments.ports import (
    Capability,
    OperationRequest,
    OutcomePending,
    PaymentGateway,
    PaymentMethod,
)
from markethall.shared.kernel.money import Money


class ManualGateway(PaymentGateway):
    provider = "manual"
    # without REFUND, because staff transfer refunds and mark them as paid
    capabilities = frozenset({Capability.MARK_PAID})

    def __init__(self, methods: Sequence[ManualMethod]) -> None:
        self._methods = {f"{self.provider}:{method.code}": method for method in methods}

    def accepts(self, method: str) -> bool:
        return method in self._methods

    def list_methods(self) -> Sequence[PaymentMethod]:
        return [_to_payment_method(name, method) for name, method in self._methods.items()]

    async def charge(self, request: OperationRequest) -> Outcome:
        """Return the instructions. The deadline counts from the opening of the payment."""
        method = self._methods.get(request.method)
        if method is None:
            return Failed("method_removed")
        instructions = method.instructions.replace("{payment_id}", str(request.payment_id))
        return ActionRequired(
            AwaitTransferAction(instructions=instructions),
            lifetime=timedelta(days=method.deadline_days),
        )

    async def lookup(self, request: OperationRequest) -> Outcome | None:
        if request.kind is OperationKind.REFUND:
            # the outcome is known when staff mark the refund as paid
            raise OutcomePending
        return await self.charge(request)

    async def cancel_unknown(self, request: OperationRequest) -> Outcome:
        return await self.charge(request)


def _to_payment_method(name: str, method: ManualMethod) -> PaymentMethod:
    limit = method.max_total
    return PaymentMethod(
        method=name,
        name=method.name,
        instructions=method.instructions,
        currencies=method.currencies,
        countries=method.countries,
        max_total=Money(amount=limit.amount, currency=limit.currency) if limit else None,
    )
