from uuid import UUID

from markethall.shared.kernel.call_context import Actor
from markethall.shared.kernel.scopes import GUEST_SCOPES, PROFILE, scopes_for_roles
from markethall.users.contract import TokenPair
from markethall.users.domain import Guest, RefreshToken, Session, User
from markethall.users.ports import TokenSigner


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
