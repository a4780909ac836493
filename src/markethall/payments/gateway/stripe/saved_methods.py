"""Saved cards: customers and their PaymentMethods at Stripe."""

from uuid import UUID, uuid5

from markethall.payments.gateway.stripe.api import (
    IdempotencyKeyTaken,
    Rejected,
    StoredServerError,
    StripeApi,
)
from markethall.payments.gateway.stripe.objects import USER_KEY
from markethall.payments.ports import PaymentGatewayTimeout


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
