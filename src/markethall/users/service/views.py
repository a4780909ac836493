from uuid import UUID

from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.scopes import GUEST_SCOPES, PROFILE, scopes_for_roles
from markethall.users.contract import GuestClaimView, TokenPair, UserNotFound, UserView
from markethall.users.domain.session import RefreshToken, Session
from markethall.users.domain.user import Guest, User
from markethall.users.ports import ReadStore, Store, TokenSigner


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


class TokenPairs:
    """Signs the access tokens of users and guests."""

    def __init__(self, signer: TokenSigner) -> None:
        self._signer = signer

    def build(self, owner: User | Guest, session: Session, token: RefreshToken) -> TokenPair:
        scopes = scopes_of(owner)
        actor = Actor(
            user_id=_id_of(owner),
            roles=owner.roles,
            scopes=scopes,
            session_id=session.session_id,
            is_guest=isinstance(owner, Guest),
        )
        return TokenPair(
            access_token=self._signer.sign(actor),
            expires_in=int(self._signer.lifetime.total_seconds()),
            refresh_token=token.encoded,
            scope=" ".join(sorted(scopes)),
        )


def scopes_of(owner: User | Guest) -> frozenset[str]:
    if isinstance(owner, Guest):
        return GUEST_SCOPES
    # users of all roles may see their own account
    return scopes_for_roles(owner.roles) | {PROFILE}


def subject_of(owner: User | Guest) -> str:
    """Return the name of the owner in the security log."""
    kind = "guest" if isinstance(owner, Guest) else "user"
    return f"{kind}:{_id_of(owner)}"


def _id_of(owner: User | Guest) -> UUID:
    return owner.guest_id if isinstance(owner, Guest) else owner.user_id
