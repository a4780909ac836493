from datetime import timedelta
from uuid import UUID

from markethall.shared.kernel.call_context import CallContext
from markethall.shared.persistence.database import Database
from markethall.users.contract import (
    Customer,
    IssueOrderToken,
    OrderToken,
    UserInactive,
    UserNotFound,
)
from markethall.users.domain.user import Guest
from markethall.users.ports import ReadStore, Store, TokenSigner


class InternalUserService:
    """Implementation of the contract `Users` in this process."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        signer: TokenSigner,
        order_token_lifetime: timedelta,
    ) -> None:
        self._database = database
        self._signer = signer
        self._order_token_lifetime = order_token_lifetime

    async def get_active_customer(self, ctx: CallContext, user_id: UUID) -> Customer:
        async with self._database.read_session() as store:
            user = await store.get_user(user_id)
            guest = None if user else await store.get_guest(user_id)
        if guest:
            return _to_customer(guest)
        if user is None:
            raise UserNotFound(user_id=str(user_id))
        user.check_active()
        return Customer(user_id=user.user_id, email=user.identity.email, full_name=user.full_name)

    async def issue_order_token(self, ctx: CallContext, command: IssueOrderToken) -> OrderToken:
        async with self._database.read_session() as store:
            guest = await store.get_guest(command.owner_id)
            user = await store.get_user((guest and guest.claimed_by) or command.owner_id)
        if user:
            user.check_active()
        lifetime = self._order_token_lifetime
        return OrderToken(
            order_token=self._signer.sign_order_token(command.order_id, lifetime),
            expires_in=int(lifetime.total_seconds()),
        )


def _to_customer(guest: Guest) -> Customer:
    """Raises UserInactive if a user has claimed the guest."""
    if not guest.is_active:
        raise UserInactive(
            "This guest has become a user; sign in with the account.",
            user_id=str(guest.guest_id),
        )
    return Customer(user_id=guest.guest_id, email="", full_name=None, is_guest=True)
