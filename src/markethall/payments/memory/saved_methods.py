"""The in-memory store of saved payment methods and claimed guests."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from markethall.payments.domain.saved_method import MethodDetails, ProviderCustomer, SavedMethod
from markethall.payments.memory.tables import Tables
from markethall.shared.composition.memory import MemoryUnitOfWork
from markethall.shared.kernel.pagination import TimeKeyset


class MemorySavedMethodStore(MemoryUnitOfWork):
    _tables: Tables

    async def get_saved_method(self, saved_method_id: UUID) -> SavedMethod | None:
        return self._tables.saved_methods.get(saved_method_id)

    async def find_saved_method(self, provider: str, token: str) -> SavedMethod | None:
        found = self._tables.saved_methods.where(
            lambda method: (method.provider, method.details.token) == (provider, token)
        )
        return found[0] if found else None

    async def list_saved_methods(
        self, user_id: UUID, after: TimeKeyset | None, limit: int
    ) -> Sequence[SavedMethod]:
        methods = self._tables.saved_methods.where(
            lambda method: (
                method.user_id == user_id
                and not method.is_deleted
                and (after is None or _position(method) < after)
            )
        )
        return sorted(methods, key=_position, reverse=True)[:limit]

    async def get_provider_customer(self, user_id: UUID, provider: str) -> ProviderCustomer | None:
        return self._tables.provider_customers.get((user_id, provider))

    async def add_provider_customer(
        self, customer: ProviderCustomer, replaced: str | None = None
    ) -> ProviderCustomer:
        key = customer.user_id, customer.provider
        stored = self._tables.provider_customers.get(key)
        if stored and stored.reference == replaced:
            self._tables.provider_customers.put(key, customer)
        else:
            self._tables.provider_customers.add(key, customer)
        return self._tables.provider_customers.get(key) or customer

    async def add_saved_method(self, method: SavedMethod) -> None:
        if await self.find_saved_method(method.provider, method.details.token) is None:
            self._tables.saved_methods.put(method.saved_method_id, method)

    async def delete_saved_methods(
        self, user_id: UUID, saved_method_id: UUID | None, now: datetime, limit: int
    ) -> Sequence[SavedMethod]:
        methods = self._tables.saved_methods.where(
            lambda method: (
                method.user_id == user_id
                and not method.is_deleted
                and saved_method_id in {None, method.saved_method_id}
            )
        )
        deleted = [replace(method, deleted_at=now, detach_at=now) for method in methods[:limit]]
        for method in deleted:
            self._tables.saved_methods.put(method.saved_method_id, method)
        return deleted

    async def claim_methods_to_detach(
        self, now: datetime, next_at: datetime, limit: int
    ) -> Sequence[SavedMethod]:
        due = self._tables.saved_methods.where(
            lambda method: method.detach_at is not None and method.detach_at <= now
        )
        claimed = [replace(method, detach_at=next_at) for method in due[:limit]]
        for method in claimed:
            self._tables.saved_methods.put(method.saved_method_id, method)
        return claimed

    async def finish_detaching(self, saved_method_id: UUID) -> None:
        method = self._tables.saved_methods.get(saved_method_id)
        if method:
            erased = MethodDetails(method.details.token)
            self._tables.saved_methods.put(
                saved_method_id, replace(method, details=erased, detach_at=None)
            )


def _position(method: SavedMethod) -> tuple[datetime, UUID]:
    return method.created_at, method.saved_method_id


class MemoryGuestStore(MemoryUnitOfWork):
    _tables: Tables

    async def get_guest_owner_for_update(self, guest_id: UUID) -> UUID | None:
        return self._tables.guest_owners.get(guest_id)

    async def set_guest_owner(self, guest_id: UUID, user_id: UUID) -> None:
        self._tables.guest_owners.put(guest_id, user_id)

    async def move_saved_methods(self, guest_id: UUID, user_id: UUID) -> None:
        for method in self._tables.saved_methods.where(lambda one: one.user_id == guest_id):
            moved = replace(method, user_id=user_id)
            self._tables.saved_methods.put(method.saved_method_id, moved)
        customers = self._tables.provider_customers
        for customer in customers.where(lambda one: one.user_id == guest_id):
            customers.add((user_id, customer.provider), replace(customer, user_id=user_id))
            customers.remove((guest_id, customer.provider))
