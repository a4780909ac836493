"""The gateway of Stripe."""

import re
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

from markethall.payments.contract.statuses import OperationKind
from markethall.payments.gateway.stripe.amounts import SUPPORTED_CURRENCIES, AmountNotSupported
from markethall.payments.gateway.stripe.api import StripeApi
from markethall.payments.gateway.stripe.disputes import lookup_dispute
from markethall.payments.gateway.stripe.intents import IntentOperations
from markethall.payments.gateway.stripe.outcomes import IN_BROWSER, PROVIDER
from markethall.payments.gateway.stripe.refunds import RefundOperations
from markethall.payments.gateway.stripe.reports import list_report, parse_dashboard_row
from markethall.payments.gateway.stripe.saved_methods import SavedMethodOperations
from markethall.payments.gateway.stripe.webhooks import StripeWebhooks
from markethall.payments.ports import (
    PROVIDER_TIMEOUT,
    Capability,
    Failed,
    OperationRequest,
    Outcome,
    PaymentGateway,
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

    async def authorize(self, request: OperationRequest) -> Outcome:
        return await _unless_unsupported(self._intents.pay(request))

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
