"""The calls that other contexts may make."""

from uuid import UUID

from markethall.shared.kernel.call_context import CallContext
from markethall.shared.persistence.database import Database
from markethall.users.contract import Customer
from markethall.users.ports import ReadStore, Store
from markethall.users.service.views import get_user_or_404


class InternalUserService:
    """Implementation of the contract `Users` in this process."""

    def __init__(self, database: Database[ReadStore, Store]) -> None:
        self._database = database

    async def get_active_customer(self, ctx: CallContext, user_id: UUID) -> Customer:
        async with self._database.read_session() as store:
            user = await get_user_or_404(store, user_id)
        user.check_active()
        return Customer(user_id=user.user_id, email=user.identity.email, full_name=user.full_name)
