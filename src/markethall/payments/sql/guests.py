"""The Postgres store of claimed guests, and its statements."""

from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import insert

from markethall.payments.sql.tables import guest_owners, provider_customers, saved_methods
from markethall.shared.composition.sql import SqlUnitOfWork
from markethall.shared.persistence.postgres import Statement

# Inserts a row, or locks and returns the existing row. On conflict, `user_id` is set to its own
# value, because DO NOTHING would neither lock nor return the row.
GET_GUEST_OWNER_FOR_UPDATE = Statement(
    insert(guest_owners)
    .values(guest_id=bindparam("guest_id"))
    .on_conflict_do_update(
        index_elements=[guest_owners.c.guest_id], set_={"user_id": guest_owners.c.user_id}
    )
    .returning(guest_owners.c.user_id)
)
SET_GUEST_OWNER = Statement(
    insert(guest_owners)
    .values(guest_id=bindparam("guest_id"), user_id=bindparam("user_id"))
    .on_conflict_do_update(
        index_elements=[guest_owners.c.guest_id], set_={"user_id": bindparam("user_id")}
    )
)
_methods_of_guest = (
    sa.select(saved_methods.c.saved_method_id)
    .where(saved_methods.c.user_id == bindparam("guest_id"))
    # in the order in which other statements lock the rows
    .order_by(saved_methods.c.saved_method_id)
    .with_for_update()
    .cte("methods_of_guest")
)
MOVE_SAVED_METHODS = Statement(
    sa.update(saved_methods)
    .where(saved_methods.c.saved_method_id == _methods_of_guest.c.saved_method_id)
    .values(user_id=bindparam("new_user_id", type_=sa.Uuid))
)
# On conflict, the user already has a customer at this provider, which is kept.
COPY_PROVIDER_CUSTOMERS = Statement(
    insert(provider_customers)
    .from_select(
        ["user_id", "provider", "reference"],
        sa.select(
            bindparam("new_user_id", type_=sa.Uuid),
            provider_customers.c.provider,
            provider_customers.c.reference,
        ).where(provider_customers.c.user_id == bindparam("guest_id", type_=sa.Uuid)),
    )
    .on_conflict_do_nothing()
)
DELETE_PROVIDER_CUSTOMERS = Statement(
    sa.delete(provider_customers).where(provider_customers.c.user_id == bindparam("guest_id"))
)


class SqlGuestStore(SqlUnitOfWork):
    async def get_guest_owner_for_update(self, guest_id: UUID) -> UUID | None:
        user_id: UUID | None = await self._connection.fetch_value(
            GET_GUEST_OWNER_FOR_UPDATE, guest_id=guest_id
        )
        return user_id

    async def set_guest_owner(self, guest_id: UUID, user_id: UUID) -> None:
        await self._connection.execute(SET_GUEST_OWNER, guest_id=guest_id, user_id=user_id)

    async def move_saved_methods(self, guest_id: UUID, user_id: UUID) -> None:
        values = {"guest_id": guest_id, "new_user_id": user_id}
        await self._connection.execute(MOVE_SAVED_METHODS, **values)
        await self._connection.execute(COPY_PROVIDER_CUSTOMERS, **values)
        await self._connection.execute(DELETE_PROVIDER_CUSTOMERS, guest_id=guest_id)
