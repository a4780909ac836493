"""The gateway of Stripe."""

import re
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID, uuid5

from markethall.payments.contract.statuses import OperationKind
from markethall.payments.gateway.stripe.amounts import (
    SUPPORTED_CURRENCIES,
    AmountNotSupported,
    to_stripe_amount,
)
from markethall.payments.gateway.stripe.api import (
    IdempotencyKeyTaken,
    Rejected,
    StoredServerError,
    StripeApi,
)
from markethall.payments.gateway.stripe.intents import IntentOperations
from markethall.payments.gateway.stripe.objects import OPERATION_KEY, PAYMENT_KEY, USER_KEY, Intent
from markethall.payments.gateway.stripe.outcomes import (
    IN_BROWSER,
    PROVIDER,
    blocked_outcome,
    refund_outcome,
    require_outcome,
)
from markethall.payments.gateway.stripe.reports import list_report, parse_dashboard_row
from markethall.payments.gateway.stripe.webhooks import StripeWebhooks, lookup_dispute
from markethall.payments.ports import (
    PROVIDER_TIMEOUT,
    Capability,
    Failed,
    OperationRequest,
    Outcome,
    PaymentGateway,
    PaymentGatewayTimeout,
    PaymentMethod,
    ProviderDispute,
    ProviderEvent,
    ProviderNews,
    ReportLine,
)

T = TypeVar("T")

# made in the browser by Stripe.js: a PaymentMethod or a ConfirmationToken, never card data
_METHOD: Final = re.compile(r"(?:pm|ctoken)_\w{1,90}", re.ASCII)
_PAYMENT_KINDS: Final = frozenset({OperationKind.CHARGE, OperationKind.AUTHORIZE})


class StripeGateway(PaymentGateway):
    provider = PROVIDER
    capabilities = frozenset(
        {
            Capability.AUTHORIZE,
            Capability.PARTIAL_CAPTURE,
            Capability.REFUND,
            Capability.PARTIAL_REFUND,
            Capability.WEBHOOKS,
            Capability.REPORT,
            Capability.CANCEL_ACTION,
            Capability.SAVED_METHODS,
            Capability.DISPUTES,
        }
    )

    def __init__(
        self,
        api: StripeApi,
        intents: IntentOperations,
        webhooks: StripeWebhooks,
        method_types: Sequence[str],
    ) -> None:
        self._api = api
        self._method_types = method_types
        self._intents = intents
        self._refunds = RefundOperations(api, intents)
        self._saved_methods = SavedMethodOperations(api)
        self._webhooks = webhooks

    def accepts(self, method: str) -> bool:
        return method == IN_BROWSER or _METHOD.fullmatch(method) is not None

    def list_methods(self) -> Sequence[PaymentMethod]:
        """Return one method for all types; Stripe.js shows the types that fit the customer."""
        name = ", ".join(kind.replace("_", " ").capitalize() for kind in self._method_types)
        return [PaymentMethod(method=IN_BROWSER, name=name, currencies=SUPPORTED_CURRENCIES)]

    async def charge(self, request: OperationRequest) -> Outcome:
        return await _unless_unsupported(self._intents.pay(request))

    # the request says whether the intent is captured at once
    authorize = charge

    async def capture(self, request: OperationRequest) -> Outcome:
        return await _unless_unsupported(self._intents.capture(request))

    async def void(self, request: OperationRequest) -> Outcome:
        return await _unless_unsupported(self._intents.void(request))

    async def refund(self, request: OperationRequest) -> Outcome:
        return await _unless_unsupported(self._refunds.refund(request))

    async def lookup(self, request: OperationRequest) -> Outcome | None:
        return await _unless_unsupported(self._lookup(request))

    async def cancel_unknown(self, request: OperationRequest) -> Outcome:
        if request.kind in _PAYMENT_KINDS:
            return await _unless_unsupported(self._intents.cancel_unknown_payment(request))
        if outcome := await self.lookup(request):
            return outcome
        if not await self._intents.block_change(request):
            outcome = await self.lookup(request)
        return outcome or Failed(PROVIDER_TIMEOUT)

    async def cancel_action(self, request: OperationRequest) -> Outcome:
        return await _unless_unsupported(self._intents.cancel_action(request))

    async def lookup_dispute(self, reference: str) -> ProviderDispute | None:
        return await lookup_dispute(self._api, reference)

    async def ensure_customer(self, user_id: UUID, known: str | None = None) -> str:
        return await self._saved_methods.ensure_customer(user_id, known)

    async def detach_method(self, token: str) -> None:
        await self._saved_methods.detach(token)

    def parse_event(self, headers: Mapping[str, str], body: bytes, now: datetime) -> ProviderEvent:
        return self._webhooks.parse_event(headers, body, now)

    def parse_news(self, event: ProviderEvent) -> ProviderNews:
        return self._webhooks.parse_news(event)

    def report(self, start: datetime, end: datetime) -> AsyncIterator[ReportLine]:
        return list_report(self._api, start, end)

    def parse_report_row(self, row: Mapping[str, str]) -> ReportLine:
        return parse_dashboard_row(row)

    async def close(self) -> None:
        await self._api.close()

    async def _lookup(self, request: OperationRequest) -> Outcome | None:
        if request.kind in _PAYMENT_KINDS:
            return await self._intents.lookup_payment(request)
        if request.kind is OperationKind.REFUND:
            return await self._refunds.lookup(request)
        return await self._intents.lookup_change(request)


async def _unless_unsupported(call: Awaitable[T]) -> T | Failed:
    """Return the result, or Failed if Stripe does not support the amount.

    Stripe has not received the operation then, because such an amount cannot be sent.
    """
    try:
        return await call
    except AmountNotSupported:
        return Failed("amount_not_supported")


class SavedMethodOperations:
    def __init__(self, api: StripeApi) -> None:
        self._api = api

    async def ensure_customer(self, user_id: UUID, known: str | None) -> str:
        """Create a customer unless `known` exists at Stripe. Raises PaymentGatewayTimeout."""
        if known is None:
            return await self._create_customer(user_id, user_id)
        found = await self._api.find_customer(known)
        if found and not found.deleted:
            return known
        # not the idempotency key with which `known` was created: for this key Stripe may still
        # return `known`
        return await self._create_customer(user_id, uuid5(user_id, known))

    async def _create_customer(self, user_id: UUID, key: UUID) -> str:
        parameters = {"metadata": {USER_KEY: str(user_id)}}
        try:
            customer = await self._api.create_customer(parameters, f"{key}:customer")
        except (Rejected, IdempotencyKeyTaken, StoredServerError):
            raise PaymentGatewayTimeout from None
        return customer.id

    async def detach(self, method_id: str) -> None:
        """Detach the PaymentMethod from its customer. Raises PaymentGatewayTimeout.

        Stripe rejects a second detach, so the current state tells whether it is detached.
        """
        try:
            await self._api.detach_method(method_id)
        except Rejected:
            method = await self._api.find_method(method_id)
            if method and method.customer:
                raise PaymentGatewayTimeout from None


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
