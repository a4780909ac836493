from uuid import UUID

from markethall.users.contract import GuestClaimView, UserNotFound, UserView
from markethall.users.domain import Guest, User
from markethall.users.ports import ReadStore, Store


async def get_user_or_404(store: ReadStore, user_id: UUID) -> User:
    user = await store.get_user(user_id)
    if user is None:
        raise UserNotFound(user_id=str(user_id))
    return user


async def get_user_for_update_or_404(store: Store, user_id: UUID) -> User:
    user = await store.get_user_for_update(user_id)
    if user is None:
        raise UserNotFound(user_id=str(user_id))
    return user


def to_user_view(user: User) -> UserView:
    return UserView(
        user_id=user.user_id,
        username=user.identity.username,
        email=user.identity.email,
        full_name=user.full_name,
        tags=user.tags,
        roles=user.roles,
        is_active=user.is_active,
        email_verified=user.email_verified,
        signup_date=user.signup_date,
        version=user.version,
    )


def to_claim_view(guest: Guest) -> GuestClaimView:
    """Convert a claimed guest."""
    return GuestClaimView.model_validate(
        {
            "guest_id": guest.guest_id,
            "user_id": guest.claimed_by,
            "claimed_at": guest.claimed_at,
        }
    )
