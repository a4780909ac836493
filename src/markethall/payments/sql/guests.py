"""The Postgres store of claimed guests."""

from uuid import UUID

from markethall.payments.sql import guest_statements as sql
from markethall.shared.composition.sql import SqlUnitOfWork


class SqlGuestStore(SqlUnitOfWork):
    async def get_guest_owner_for_update(self, guest_id: UUID) -> UUID | None:
        user_id: UUID | None = await self._connection.fetch_value(
            sql.GET_GUEST_OWNER_FOR_UPDATE, guest_id=guest_id
        )
        return user_id

    async def set_guest_owner(self, guest_id: UUID, user_id: UUID) -> None:
        await self._connection.execute(sql.SET_GUEST_OWNER, guest_id=guest_id, user_id=user_id)

    async def move_saved_methods(self, guest_id: UUID, user_id: UUID) -> None:
        values = {"guest_id": guest_id, "new_user_id": user_id}
        await self._connection.execute(sql.MOVE_SAVED_METHODS, **values)
        await self._connection.execute(sql.COPY_PROVIDER_CUSTOMERS, **values)
        await self._connection.execute(sql.DELETE_PROVIDER_CUSTOMERS, guest_id=guest_id)
