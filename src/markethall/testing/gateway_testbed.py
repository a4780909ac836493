"""A payment gateway under test, with access to the data of its provider."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Final
from uuid import UUID

from markethall.payments.ports import (
    Capability,
    OperationKind,
    OperationRequest,
    Outcome,
    PaymentGateway,
)
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.money import Money

AMOUNT: Final = 1000


@dataclass(frozen=True)
class ProviderTotals:
    """The amounts of one charge or authorization at the provider, in minor units."""

    captured: int = 0
    refunded: int = 0


class GatewayTestbed(ABC):
    """A gateway and its provider. The provider has no operations at the start."""

    gateway: PaymentGateway
    # a payment method whose charges succeed, and one whose charges are declined
    method: str
    declined_method: str
    # a payment method whose charges wait for an action of the customer; only needed for the
    # capability `cancel_action`
    action_method: str = ""
    currency: str = "EUR"
    other_currency: str = "USD"
    # the time at which the webhooks of the tests are received
    NOW: ClassVar = datetime(2026, 1, 1, 12, tzinfo=UTC)

    @abstractmethod
    async def totals(self, charge_id: UUID) -> ProviderTotals:
        """Return the amounts of a charge or authorization; zeros for one that does not exist."""

    @abstractmethod
    def lose_next_answer(self) -> None:
        """Let the provider execute the next command, but drop its answer."""

    def finish_action(self, charge_id: UUID) -> None:
        """Finish the action as the customer does; the charge succeeds unless it was cancelled.

        A gateway without the capability `cancel_action` does not need this method.
        """
        raise NotImplementedError("needed for the capability `cancel_action`")

    def open_dispute(self, charge_id: UUID) -> str:
        """Dispute the whole amount of a charge. Return the id of the dispute at the provider.

        A gateway without the capability `disputes` does not need this method.
        """
        raise NotImplementedError("needed for the capability `disputes`")

    def webhook_body(self, request: OperationRequest, outcome: Outcome) -> bytes:
        """Return the body of the provider's event about an operation.

        A gateway without the capability `webhooks` does not need this method.
        """
        raise NotImplementedError("needed for the capability `webhooks`")

    def sign_webhook(self, body: bytes, sent_at: datetime) -> Mapping[str, str]:
        """Return the headers with which the provider sends a body. Their names are in lower case.

        A gateway without the capability `webhooks` does not need this method.
        """
        raise NotImplementedError("needed for the capability `webhooks`")

    def can(self, *capabilities: Capability) -> bool:
        """Tell whether the gateway declares all of these capabilities."""
        return self.gateway.capabilities.issuperset(capabilities)

    def charge_request(
        self,
        amount: int = AMOUNT,
        method: str | None = None,
        kind: OperationKind = OperationKind.CHARGE,
    ) -> OperationRequest:
        return OperationRequest(
            operation_id=new_id(),
            payment_id=new_id(),
            kind=kind,
            amount=Money(amount=amount, currency=self.currency),
            created_at=self.NOW,
            method=method or self.method,
        )

    def follow_up(
        self,
        kind: OperationKind,
        charge: OperationRequest,
        amount: int = AMOUNT,
        currency: str | None = None,
        *,
        is_final: bool = False,
    ) -> OperationRequest:
        """Return a capture, void or refund of a charge whose `reference` is known."""
        return OperationRequest(
            operation_id=new_id(),
            payment_id=charge.payment_id,
            kind=kind,
            amount=Money(amount=amount, currency=currency or self.currency),
            created_at=self.NOW,
            charge_id=charge.operation_id,
            charge_reference=charge.reference,
            is_final=is_final,
        )
