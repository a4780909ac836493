"""The in-memory store of claimed guests."""

from dataclasses import replace
from uuid import UUID

from markethall.payments.memory.tables import Tables
from markethall.shared.composition.memory import MemoryUnitOfWork


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
