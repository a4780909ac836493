"""Handlers of the events of other contexts."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from markethall.payments.domain.payment import Payment
from markethall.payments.ports import PaymentFilter, ReadStore, Store
from markethall.shared.messaging.events import Delivery
from markethall.shared.persistence.database import Database
from markethall.users.contract import GuestClaimed

_BATCH_SIZE: Final = 50


class PaymentEventHandlers:
    def __init__(self, database: Database[ReadStore, Store]) -> None:
        self._database = database

    async def on_guest_claimed(self, delivery: Delivery, event: GuestClaimed) -> None:
        """Change the owner of the guest's payments, then of the saved payment methods, to the user.

        From the first commit on, payments that are opened for the guest belong to the user. The
        saved methods are changed last, because until the payments have changed their owner, a
        charge may still save a method for the guest. After a crash the handler runs again and
        continues with the remaining payments.
        """
        async with self._database.autocommit() as store:
            await store.set_guest_owner(event.guest_id, event.user_id)
        await self._claim_payments(event)
        async with self._database.transaction() as store:
            await store.move_saved_methods(event.guest_id, event.user_id)
            await store.mark_processed(delivery)

    async def _claim_payments(self, event: GuestClaimed) -> None:
        # a payment that has changed its owner is no longer in the list
        while payments := await self._list_payments(event.guest_id):
            for payment in payments:
                await self._claim_payment(payment.payment_id, event)

    async def _list_payments(self, guest_id: UUID) -> Sequence[Payment]:
        async with self._database.read_session() as store:
            return await store.list_payments(PaymentFilter(_BATCH_SIZE, user_id=guest_id))

    async def _claim_payment(self, payment_id: UUID, event: GuestClaimed) -> None:
        async with self._database.transaction() as store:
            payment = await store.get_payment_for_update(payment_id)
            if payment and payment.user_id == event.guest_id:
                payment.change_owner(event.user_id)
                await store.save_payment(payment)
