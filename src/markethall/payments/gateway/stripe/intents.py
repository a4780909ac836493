"""Charges, authorizations, captures and voids: the operations on PaymentIntents.

A payment takes two requests: create the intent, which takes no money, then confirm it. If the
answer to one of them is lost, the create request is repeated with the same idempotency key. Stripe
then returns the same intent. If Stripe has never received the create request, the repetition
creates an intent, which is not confirmed and so takes no money.
See docs/decisions/0023-create-then-confirm-stripe-intents.md.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import UUID

from markethall.payments.gateway.stripe.amounts import to_stripe_amount
from markethall.payments.gateway.stripe.api import (
    IdempotencyKeyTaken,
    Rejected,
    StoredServerError,
    StripeApi,
)
from markethall.payments.gateway.stripe.objects import (
    ABANDONED,
    CAPTURE_KEY,
    FINAL_STATUSES,
    OPERATION_KEY,
    PAYMENT_KEY,
    Intent,
)
from markethall.payments.gateway.stripe.outcomes import (
    IN_BROWSER,
    blocked_key,
    capture_outcome,
    check_answer,
    payment_outcome,
    require_outcome,
    void_outcome,
)
from markethall.payments.ports import (
    PROVIDER_TIMEOUT,
    Failed,
    OperationKind,
    OperationRequest,
    Outcome,
    PaymentGatewayTimeout,
)
from markethall.shared.kernel.clock import Clock

CONFIRMATION_TOKEN_PREFIX: Final = "ctoken_"
# Stripe forgets idempotency keys after 24 hours. For operations older than this value, which leaves
# a margin, the gateway therefore searches for the intent.
_KEY_LIFETIME: Final = timedelta(hours=20)


class IntentOperations:
    def __init__(
        self, api: StripeApi, clock: Clock, method_types: tuple[str, ...], return_url: str | None
    ) -> None:
        self._api = api
        self._clock = clock
        self._method_types = method_types
        self._return_url = return_url

    # Charges and authorizations

    async def pay(self, request: OperationRequest) -> Outcome:
        """Create and confirm the intent. Raises AmountNotSupported, PaymentGatewayTimeout."""
        if self.is_key_forgotten(request):
            # Stripe would take the repeated request for a new one, and charge a second time
            return await self.cancel_unknown_payment(request)
        try:
            intent = await self._create(request)
            if request.method == IN_BROWSER:
                confirmed = intent
            else:
                confirmed = await self._confirm(intent, request)
        except Rejected as rejection:
            return await self._outcome_of_rejected(rejection, request)
        except (IdempotencyKeyTaken, StoredServerError):
            raise PaymentGatewayTimeout from None
        return require_outcome(payment_outcome(confirmed, request))

    async def _outcome_of_rejected(self, rejection: Rejected, request: OperationRequest) -> Outcome:
        """Return the outcome of an intent that was confirmed before, else that of the rejection."""
        intent = rejection.intent
        if intent and intent.status in FINAL_STATUSES:
            # the intent in a rejection has only the id of the saved card, not the card itself
            intent = await self._api.get_intent(intent.id)
        confirmed_before = intent and payment_outcome(intent, request)
        return confirmed_before or Failed(rejection.code)

    async def lookup_payment(self, request: OperationRequest) -> Outcome | None:
        """Raises AmountNotSupported, PaymentGatewayTimeout."""
        try:
            intent = await self._find(request)
        except Rejected as rejection:
            return Failed(rejection.code)
        return payment_outcome(intent, request) if intent else None

    async def cancel_unknown_payment(self, request: OperationRequest) -> Outcome:
        """Cancel the intent unless it was confirmed, so that Stripe rejects a later confirm."""
        try:
            intent = await self._find(request)
        except Rejected as rejection:
            return Failed(rejection.code)
        if intent is None:
            return Failed(PROVIDER_TIMEOUT)
        if outcome := payment_outcome(intent, request):
            return outcome
        cancelled = await self._cancel_or_get(intent.id)
        return require_outcome(payment_outcome(cancelled, request))

    async def cancel_action(self, request: OperationRequest) -> Outcome:
        """Cancel the intent unless the customer has paid.

        Raises AmountNotSupported, PaymentGatewayTimeout.
        """
        try:
            intent = await self._find(request)
        except Rejected as rejection:
            return Failed(rejection.code)
        if intent is None:
            return Failed(PROVIDER_TIMEOUT)
        if intent.status not in FINAL_STATUSES:
            intent = await self._cancel_or_get(intent.id)
        outcome = payment_outcome(intent, request)
        if intent.status not in FINAL_STATUSES or outcome is None:
            raise PaymentGatewayTimeout
        return outcome

    def is_key_forgotten(self, request: OperationRequest) -> bool:
        """Tell whether Stripe may have forgotten the idempotency keys of the operation."""
        return self._clock() - request.created_at > _KEY_LIFETIME

    async def _create(self, request: OperationRequest) -> Intent:
        is_charge = request.kind is OperationKind.CHARGE
        parameters = {
            "amount": to_stripe_amount(request.amount),
            "currency": request.amount.currency.lower(),
            "capture_method": "automatic" if is_charge else "manual",
            "payment_method_types": list(self._method_types),
            "metadata": {
                OPERATION_KEY: str(request.operation_id),
                PAYMENT_KEY: str(request.payment_id),
            },
            **_customer_parameters(request),
        }
        intent = await self._api.create_intent(parameters, f"{request.operation_id}:create")
        # checked before the confirm, because the confirm takes the money
        check_answer(intent, request)
        return intent

    async def _confirm(self, intent: Intent, request: OperationRequest) -> Intent:
        parameters = self._confirm_parameters(request)
        return await self._api.confirm_intent(intent.id, parameters, str(request.operation_id))

    def _confirm_parameters(self, request: OperationRequest) -> dict[str, Any]:
        is_token = request.method.startswith(CONFIRMATION_TOKEN_PREFIX)
        method = {"confirmation_token" if is_token else "payment_method": request.method}
        if self._return_url is None:
            return method | {"use_stripe_sdk": "true"}
        return method | {"return_url": _with_payment_id(self._return_url, request.payment_id)}

    async def _find(self, request: OperationRequest) -> Intent | None:
        """Return the current state of the intent. Return None if no intent can have been confirmed.

        Raises Rejected if Stripe does not accept the parameters of the intent, such as the amount.
        """
        if request.reference:
            return await self._api.get_intent(request.reference)
        if self.is_key_forgotten(request):
            return await self._search(request.operation_id)
        try:
            created = await self._create(request)
        except StoredServerError:
            # Stripe repeats this error for every create request of the operation, so no request
            # has returned an intent that could be confirmed
            return None
        except IdempotencyKeyTaken:
            # the first request had other parameters: the method types in the settings have changed
            return await self._search_new(request.operation_id)
        # Stripe may have repeated its answer to the first create request, which shows an old state
        return await self._api.get_intent(created.id)

    async def _search(self, operation_id: UUID) -> Intent | None:
        found = await self._api.find_intent(operation_id)
        return await self._api.get_intent(found.id) if found else None

    async def _search_new(self, operation_id: UUID) -> Intent:
        """Search for an intent that exists, but may be too new for the search.

        Raises PaymentGatewayTimeout if the search does not find it yet.
        """
        intent = await self._search(operation_id)
        if intent is None:
            raise PaymentGatewayTimeout
        return intent

    async def _cancel_or_get(self, intent_id: str) -> Intent:
        """Cancel the intent. If Stripe rejects the request, return the intent's current state.

        The request has no idempotency key: with a key, Stripe would repeat a server error for 24
        hours.
        """
        try:
            return await self._api.cancel_intent(intent_id, ABANDONED, key=None)
        except Rejected:
            return await self._api.get_intent(intent_id)

    # Captures and voids of an authorization

    async def capture(self, request: OperationRequest) -> Outcome:
        """Capture the authorization once. Stripe releases the amount that is not captured."""
        parameters = {
            "amount_to_capture": to_stripe_amount(request.amount),
            "metadata": {CAPTURE_KEY: str(request.operation_id)},
        }
        authorization = await self.authorization_of(request)
        if authorization is None or authorization.currency.upper() != request.amount.currency:
            return Failed("authorization_not_found")
        try:
            captured = await self._api.capture_intent(
                authorization.id, parameters, str(request.operation_id)
            )
        except Rejected as rejection:
            captured_before = rejection.intent and capture_outcome(rejection.intent, request)
            return captured_before or Failed(rejection.code)
        except (IdempotencyKeyTaken, StoredServerError):
            return require_outcome(await self.lookup_change(request))
        return require_outcome(capture_outcome(captured, request))

    async def void(self, request: OperationRequest) -> Outcome:
        authorization = await self.authorization_of(request)
        if authorization is None:
            return Failed("authorization_not_found")
        try:
            cancelled = await self._api.cancel_intent(
                authorization.id, "requested_by_customer", str(request.operation_id)
            )
        except Rejected as rejection:
            voided_before = rejection.intent and void_outcome(rejection.intent, request)
            return voided_before or Failed(rejection.code)
        except (IdempotencyKeyTaken, StoredServerError):
            return require_outcome(await self.lookup_change(request))
        return require_outcome(void_outcome(cancelled, request))

    async def lookup_change(self, request: OperationRequest) -> Outcome | None:
        """Look up a capture or void."""
        authorization = await self.authorization_of(request)
        if authorization is None:
            return None
        if request.kind is OperationKind.CAPTURE:
            return capture_outcome(authorization, request)
        return void_outcome(authorization, request)

    async def authorization_of(self, request: OperationRequest) -> Intent | None:
        """Return the intent that a capture, void or refund changes."""
        if request.charge_reference:
            return await self._api.get_intent(request.charge_reference)
        return await self._search(request.charge_id) if request.charge_id else None

    async def block_change(self, request: OperationRequest) -> bool:
        """Make Stripe reject a capture, void or refund that it has not received yet.

        To do this, update the intent's metadata with the idempotency key of the operation: Stripe
        then rejects the operation if it arrives later. Return False if Stripe has already received
        the operation. Raises PaymentGatewayTimeout.
        """
        authorization = await self.authorization_of(request)
        if authorization is None:
            return True
        parameters = {"metadata": {blocked_key(request): "true"}}
        try:
            await self._api.update_intent(authorization.id, parameters, str(request.operation_id))
        except Rejected:
            raise PaymentGatewayTimeout from None
        except (IdempotencyKeyTaken, StoredServerError):
            return False
        return True


def _customer_parameters(request: OperationRequest) -> Mapping[str, Any]:
    """Return the parameters of saved cards. No other payment methods are saved.

    Stripe saves the card when the customer has paid, and optimizes it for payments at which the
    customer is present (`on_session`).
    """
    if request.customer is None:
        return {}
    if not request.saves_method:
        return {"customer": request.customer}
    options = {"card": {"setup_future_usage": "on_session"}}
    return {"customer": request.customer, "payment_method_options": options}


def _with_payment_id(url: str, payment_id: UUID) -> str:
    parts = urlsplit(url)
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), ("payment_id", payment_id)])
    return urlunsplit(parts._replace(query=query))
