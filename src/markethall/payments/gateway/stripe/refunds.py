"""Refunds of a charge, or of the captured amount of an authorization."""

from markethall.payments.gateway.stripe.amounts import to_stripe_amount
from markethall.payments.gateway.stripe.api import (
    IdempotencyKeyTaken,
    Rejected,
    StoredServerError,
    StripeApi,
)
from markethall.payments.gateway.stripe.intents import IntentOperations
from markethall.payments.gateway.stripe.objects import OPERATION_KEY, PAYMENT_KEY, Intent
from markethall.payments.gateway.stripe.outcomes import (
    blocked_outcome,
    refund_outcome,
    require_outcome,
)
from markethall.payments.ports import Failed, OperationRequest, Outcome


class RefundOperations:
    def __init__(self, api: StripeApi, intents: IntentOperations) -> None:
        self._api = api
        self._intents = intents

    async def refund(self, request: OperationRequest) -> Outcome:
        """Raises AmountNotSupported, PaymentGatewayTimeout."""
        amount = to_stripe_amount(request.amount)
        intent = await self._intents.authorization_of(request)
        if intent is None:
            return Failed("charge_not_found")
        # Stripe refunds only in the currency of the charge
        if intent.currency.upper() != request.amount.currency:
            return Failed("currency_mismatch")
        if self._intents.is_key_forgotten(request) and (
            earlier := await self._find(intent, request)
        ):
            return earlier
        parameters = {
            "payment_intent": intent.id,
            "amount": amount,
            "metadata": {
                OPERATION_KEY: str(request.operation_id),
                PAYMENT_KEY: str(request.payment_id),
            },
        }
        try:
            refund = await self._api.create_refund(parameters, str(request.operation_id))
        except Rejected as rejection:
            return await self._find(intent, request) or Failed(rejection.code)
        except (IdempotencyKeyTaken, StoredServerError):
            return require_outcome(await self._find(intent, request))
        return refund_outcome(refund, request)

    async def lookup(self, request: OperationRequest) -> Outcome | None:
        intent = await self._intents.authorization_of(request)
        return await self._find(intent, request) if intent else None

    async def _find(self, intent: Intent, request: OperationRequest) -> Outcome | None:
        refund = await self._api.find_refund(intent.id, request.operation_id)
        return refund_outcome(refund, request) if refund else blocked_outcome(intent, request)
