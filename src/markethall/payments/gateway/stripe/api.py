"""The calls of Stripe's API that the gateway makes, through the official SDK."""

from collections.abc import Mapping
from typing import Any, Final, NoReturn, TypeVar
from uuid import UUID

import stripe
import structlog
from pydantic import BaseModel, ValidationError

from markethall.payments.gateway.stripe.http_client import Httpx2Client
from markethall.payments.gateway.stripe.objects import (
    OPERATION_KEY,
    BalanceTransactionList,
    Dispute,
    ErrorAnswer,
    ErrorDetails,
    Intent,
    IntentList,
    Method,
    Refund,
    RefundList,
    StripeCustomer,
)
from markethall.payments.ports import PaymentGatewayTimeout

log = structlog.get_logger("markethall.payments")

M = TypeVar("M", bound=BaseModel)
Parameters = Mapping[str, Any]

_SERVER_ERROR: Final = 500
# a parameter of requests: Stripe returns these objects inside the intent instead of their ids
_EXPANSION: Final = {"expand": ["payment_method", "latest_charge.balance_transaction"]}
# the SDK reads the fields of an answer without checks, so a malformed answer raises these errors
_UNREADABLE: Final = (ValueError, TypeError, AttributeError, LookupError)


class Rejected(Exception):
    """Stripe rejected the request. `intent` is the state of the intent, if the answer has it."""

    def __init__(self, code: str, intent: Intent | None) -> None:
        super().__init__(code)
        self.code = code
        self.intent = intent


class IdempotencyKeyTaken(Exception):
    """Stripe has received another request with this idempotency key and other parameters."""


class StoredServerError(Exception):
    """Stripe has stored a server error for the idempotency key, and repeats it for each request."""


class StripeApi:
    """Calls Stripe. Raises PaymentGatewayTimeout if it is not known whether a call took effect.

    A call that writes also raises Rejected. If it has an idempotency key, it also raises
    IdempotencyKeyTaken and StoredServerError.
    """

    def __init__(self, secret_key: str, base_url: str) -> None:
        self._http = Httpx2Client()
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": base_url},
            http_client=self._http,
            max_network_retries=0,
        )

    async def close(self) -> None:
        await self._http.close_async()

    async def create_intent(self, parameters: Parameters, key: str) -> Intent:
        return await self._post(Intent, "/v1/payment_intents", parameters, key)

    async def confirm_intent(self, intent_id: str, parameters: dict[str, Any], key: str) -> Intent:
        return await self._change_intent(intent_id, "/confirm", parameters | _EXPANSION, key)

    async def capture_intent(self, intent_id: str, parameters: dict[str, Any], key: str) -> Intent:
        return await self._change_intent(intent_id, "/capture", parameters | _EXPANSION, key)

    async def cancel_intent(self, intent_id: str, reason: str, key: str | None) -> Intent:
        parameters = {"cancellation_reason": reason}
        return await self._change_intent(intent_id, "/cancel", parameters, key)

    async def update_intent(self, intent_id: str, parameters: Parameters, key: str) -> Intent:
        return await self._change_intent(intent_id, "", parameters, key)

    async def create_refund(self, parameters: Parameters, key: str) -> Refund:
        return await self._post(Refund, "/v1/refunds", parameters, key)

    async def get_intent(self, intent_id: str) -> Intent:
        path = f"/v1/payment_intents/{intent_id}"
        return _with_id(intent_id, await self._get(Intent, path, _EXPANSION))

    async def create_customer(self, parameters: Parameters, key: str) -> StripeCustomer:
        return await self._post(StripeCustomer, "/v1/customers", parameters, key)

    async def find_customer(self, customer_id: str) -> StripeCustomer | None:
        """Return the customer, also if it is deleted, or None if it does not exist."""
        return await self._find(StripeCustomer, f"/v1/customers/{customer_id}", {})

    async def detach_method(self, method_id: str) -> Method:
        return await self._post(Method, f"/v1/payment_methods/{method_id}/detach", {}, key=None)

    async def find_method(self, method_id: str) -> Method | None:
        """Return the PaymentMethod, or None if it does not exist."""
        return await self._find(Method, f"/v1/payment_methods/{method_id}", {})

    async def find_dispute(self, dispute_id: str) -> Dispute | None:
        """Return the dispute with its intent, or None if it does not exist."""
        expansion = {"expand": ["payment_intent"]}
        return await self._find(Dispute, f"/v1/disputes/{dispute_id}", expansion)

    async def _find(self, model: type[M], path: str, parameters: Parameters) -> M | None:
        try:
            return await self._request(model, "get", path, parameters)
        except Rejected as rejection:
            if rejection.code == "resource_missing":
                return None
            raise PaymentGatewayTimeout from None

    async def find_intent(self, operation_id: UUID) -> Intent | None:
        """Search for the intent of an operation. The search is about a minute behind."""
        query = f"metadata['{OPERATION_KEY}']:'{operation_id}'"
        found = await self._get(IntentList, "/v1/payment_intents/search", {"query": query})
        return found.data[0] if found.data else None

    async def find_refund(self, intent_id: str, operation_id: UUID) -> Refund | None:
        """Find the refund of an operation in the intent's list of refunds, which has no delay."""
        parameters: dict[str, Any] = {"payment_intent": intent_id, "limit": 100}
        while True:
            page = await self._get(RefundList, "/v1/refunds", parameters)
            for refund in page.data:
                if refund.metadata.get(OPERATION_KEY) == str(operation_id):
                    return refund
            if not page.has_more or not page.data:
                return None
            parameters["starting_after"] = page.data[-1].id

    async def list_balance_transactions(self, parameters: Parameters) -> BalanceTransactionList:
        return await self._get(BalanceTransactionList, "/v1/balance_transactions", parameters)

    async def _change_intent(
        self, intent_id: str, action: str, parameters: Parameters, key: str | None
    ) -> Intent:
        path = f"/v1/payment_intents/{intent_id}{action}"
        return _with_id(intent_id, await self._post(Intent, path, parameters, key))

    async def _get(self, model: type[M], path: str, parameters: Parameters) -> M:
        try:
            return await self._request(model, "get", path, parameters)
        except Rejected as rejection:
            log.warning("stripe.read_rejected", path=path, code=rejection.code)
            raise PaymentGatewayTimeout from None

    async def _post(self, model: type[M], path: str, parameters: Parameters, key: str | None) -> M:
        options = {"idempotency_key": key} if key else {}
        return await self._request(model, "post", path, {**parameters, **options})

    async def _request(self, model: type[M], method: str, path: str, parameters: Parameters) -> M:
        try:
            response = await self._client.raw_request_async(method, path, **parameters)
            return model.model_validate_json(response.body)
        except stripe.StripeError as error:
            _raise_error(path, error)
        except _UNREADABLE as error:
            log.warning("stripe.answer_unreadable", path=path, error=type(error).__name__)
            raise PaymentGatewayTimeout from None


def _with_id(intent_id: str, intent: Intent) -> Intent:
    """Return the intent. Raises PaymentGatewayTimeout if it has another id."""
    if intent.id != intent_id:
        log.error("stripe.answer_mismatch", intent_id=intent_id, field="id")
        raise PaymentGatewayTimeout
    return intent


def _raise_error(path: str, error: Any) -> NoReturn:
    match error:
        case stripe.IdempotencyError():
            raise IdempotencyKeyTaken from None
        case stripe.CardError() | stripe.InvalidRequestError():
            raise _rejection(path, error.json_body) from None
        case stripe.AuthenticationError() | stripe.PermissionError():
            log.error("stripe.key_rejected", path=path, status=error.http_status)
        case _ if _is_stored_server_error(error):
            raise StoredServerError from None
    raise PaymentGatewayTimeout from None


def _rejection(path: str, body: object) -> Exception:
    try:
        details = ErrorAnswer.model_validate(body).error
        intent = _intent_of(details)
    except ValidationError:
        return PaymentGatewayTimeout()
    if details.type is None:
        # the answer is not from Stripe, but for example from a proxy
        return PaymentGatewayTimeout()
    if details.type != "card_error":
        # often caused by a setting, for example a payment method type disabled in the dashboard
        log.warning(
            "stripe.request_rejected", path=path, code=details.failure_code, param=details.param
        )
    return Rejected(details.failure_code, intent)


def _intent_of(details: ErrorDetails) -> Intent | None:
    return Intent.model_validate(details.payment_intent) if details.payment_intent else None


def _is_stored_server_error(error: Any) -> bool:
    is_replayed = (error.headers or {}).get("idempotent-replayed") == "true"
    return is_replayed and (error.http_status or 0) >= _SERVER_ERROR
