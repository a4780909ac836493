"""Saved payment methods: list and delete them, and find the one that a customer confirms with."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import structlog

from markethall.payments.contract.api import SavedPaymentMethodView
from markethall.payments.contract.errors import (
    SavedPaymentMethodNotFound,
    UnknownPaymentMethod,
    UnsupportedByProvider,
)
from markethall.payments.domain.operation import FREE_METHOD, Operation
from markethall.payments.domain.saved_method import ProviderCustomer, SavedMethod
from markethall.payments.ports import Capability, ReadStore, Store
from markethall.payments.service.provider_client import ProviderClient
from markethall.payments.service.views import to_saved_method_view
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import parse_uuid
from markethall.shared.kernel.pagination import TIME_KEYSET, Cursors, Page, PageQuery, TimeKeyset
from markethall.shared.persistence.database import Database

log = structlog.get_logger("markethall.payments")

# methods that one statement deletes
_BATCH_SIZE: Final = 100
# The number of concurrent calls of providers, and of methods that one run of the job detaches. It
# is low, because the other jobs wait meanwhile, up to the timeout of the provider.
MAX_CONCURRENT_DETACHES: Final = 8
_DETACH_RETRY_DELAY: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class ChosenMethod:
    """The payment method of a confirm, as the provider knows it."""

    method: str
    provider: str
    customer: str | None = None
    saves_method: bool = False


class SavedMethods:
    def __init__(
        self,
        database: Database[ReadStore, Store],
        provider: ProviderClient,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._database = database
        self._provider = provider
        self._cursors = cursors
        self._clock = clock

    # Confirming

    async def choose(
        self, ctx: CallContext, method: str, save_method: bool, operation_id: UUID
    ) -> ChosenMethod:
        """Return the method to charge. If the customer wants to save it, create the customer first.

        A saved method must belong to the caller. Raises UnknownPaymentMethod,
        UnsupportedByProvider, Unavailable.
        """
        saved = await self._find(method)
        if saved:
            return await self._choose_saved(ctx, saved, method, operation_id)
        provider = self._provider.provider_of(method)
        if not save_method or provider == FREE_METHOD:
            return ChosenMethod(method, provider)
        if not self._provider.can(provider, Capability.SAVED_METHODS):
            raise UnsupportedByProvider(provider=provider, capability=Capability.SAVED_METHODS)
        customer = await self._ensure_customer(ctx.user_id, provider)
        return ChosenMethod(method, provider, customer.reference, saves_method=True)

    async def _find(self, method: str) -> SavedMethod | None:
        """Find a saved method by its id or by its token, also one that is deleted."""
        saved_method_id = parse_uuid(method)
        provider = None if saved_method_id else self._provider.provider_of_token(method)
        if not saved_method_id and not provider:
            return None
        async with self._database.read_session() as store:
            if saved_method_id:
                return await store.get_saved_method(saved_method_id)
            return await store.find_saved_method(provider, method) if provider else None

    async def _choose_saved(
        self, ctx: CallContext, saved: SavedMethod, method: str, operation_id: UUID
    ) -> ChosenMethod:
        # the holder of an order token has no user id, and so no saved methods
        is_own = saved.user_id == ctx.actor.user_id
        is_usable = self._provider.can(saved.provider, Capability.SAVED_METHODS)
        if is_own and is_usable and not saved.is_deleted:
            return ChosenMethod(saved.details.token, saved.provider, saved.customer)
        async with self._database.read_session() as store:
            earlier = await store.get_operation(operation_id)
        if is_own and earlier:
            # a retry: the method was deleted after the operation had been recorded
            return _choice_of(earlier)
        # the error repeats only the caller's text, so it does not reveal a method of another user
        raise UnknownPaymentMethod(payment_method=method)

    async def _ensure_customer(self, user_id: UUID, provider: str) -> ProviderCustomer:
        """Return the customer of the user at the provider. Raises Unavailable.

        A customer that was deleted at the provider is replaced.
        """
        async with self._database.read_session() as store:
            stored = await store.get_provider_customer(user_id, provider)
        known = stored.reference if stored else None
        reference = await self._provider.ensure_customer(provider, user_id, known)
        if reference is None:
            raise Unavailable(dependency=provider)
        if stored and reference == known:
            return stored
        customer = ProviderCustomer(user_id, provider, reference)
        async with self._database.transaction() as store:
            return await store.add_provider_customer(customer, replaced=known)

    # Listing and deleting

    async def list_methods(
        self, ctx: CallContext, query: PageQuery
    ) -> Page[SavedPaymentMethodView]:
        listing = f"saved payment methods {ctx.user_id}"
        after = self._cursors.decode(listing, query.cursor, TIME_KEYSET)
        async with self._database.read_session() as store:
            methods = await store.list_saved_methods(ctx.user_id, after, query.limit + 1)
        views = [to_saved_method_view(method) for method in methods]
        return self._cursors.build_page(listing, views, query.limit, _keyset)

    async def delete(self, ctx: CallContext, saved_method_id: UUID) -> None:
        """Delete a method of the user; a repeated call changes nothing.

        Raises SavedPaymentMethodNotFound, also for a method of another user.
        """
        user_id = ctx.user_id
        async with self._database.transaction() as store:
            deleted = await store.delete_saved_methods(user_id, saved_method_id, self._clock(), 1)
            method = deleted[0] if deleted else await store.get_saved_method(saved_method_id)
        if method is None or method.user_id != user_id:
            raise SavedPaymentMethodNotFound(saved_payment_method_id=str(saved_method_id))
        await self._detach(deleted)

    async def delete_all(self, ctx: CallContext) -> None:
        while True:
            async with self._database.transaction() as store:
                deleted = await store.delete_saved_methods(
                    ctx.user_id, None, self._clock(), _BATCH_SIZE
                )
            await self._detach(deleted)
            if len(deleted) < _BATCH_SIZE:
                return

    async def detach_deleted(self) -> None:
        """Detach deleted methods whose provider has not confirmed it yet."""
        now = self._clock()
        async with self._database.autocommit() as store:
            due = await store.claim_methods_to_detach(
                now, now + _DETACH_RETRY_DELAY, MAX_CONCURRENT_DETACHES
            )
        await self._detach(due)

    async def _detach(self, methods: Sequence[SavedMethod]) -> None:
        for start in range(0, len(methods), MAX_CONCURRENT_DETACHES):
            batch = methods[start : start + MAX_CONCURRENT_DETACHES]
            results = await asyncio.gather(*map(self._detach_one, batch), return_exceptions=True)
            for result in results:
                if result is not None:
                    raise result

    async def _detach_one(self, method: SavedMethod) -> None:
        if await self._provider.detach_method(method):
            async with self._database.autocommit() as store:
                await store.finish_detaching(method.saved_method_id)
        else:
            log.warning(
                "payment_method.detach_deferred",
                saved_payment_method_id=str(method.saved_method_id),
                provider=method.provider,
            )


def _choice_of(operation: Operation) -> ChosenMethod:
    return ChosenMethod(
        operation.method or FREE_METHOD,
        operation.provider,
        operation.customer,
        operation.saves_method,
    )


def _keyset(method: SavedPaymentMethodView) -> TimeKeyset:
    return TimeKeyset(method.created_at, method.saved_payment_method_id)
