"""Guests: create them, and claim them for a user."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unauthenticated
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.database import Database
from markethall.users.contract import BadGuestToken, GuestClaimed, GuestClaimView, GuestTokens
from markethall.users.contract.errors import BadRefreshToken
from markethall.users.domain.session import RefreshToken, Session
from markethall.users.domain.user import Guest
from markethall.users.ports import GuestTokenVerifier, ReadStore, Store
from markethall.users.service.views import TokenPairs, get_user_or_404, subject_of, to_claim_view

log = structlog.get_logger("markethall.security")


@dataclass(frozen=True)
class PresentedGuest:
    """A guest and the token that was presented for it: the refresh token or the access token.

    For an access token, `session_id` is the session in the token.
    """

    guest_id: UUID
    refresh_token: RefreshToken | None = None
    session_id: UUID | None = None

    def is_accepted(self, session: Session, now: datetime) -> bool:
        """Tell whether the session of the guest is open and the token belongs to it."""
        if self.refresh_token is None:
            return session.session_id == self.session_id and session.is_open(now)
        return session.accepts(self.refresh_token, now)


class GuestClaims:
    def __init__(
        self, database: Database[ReadStore, Store], verifier: GuestTokenVerifier, clock: Clock
    ) -> None:
        self._database = database
        self._verifier = verifier
        self._clock = clock

    async def identify(self, guest_token: str) -> PresentedGuest:
        """Return the guest of a token. Raises BadGuestToken.

        The session is not checked, because a claim ends it and the same user may repeat the claim.
        """
        if "." in guest_token:
            return self._identify_by_access_token(guest_token)
        try:
            token = RefreshToken.parse(guest_token)
        except BadRefreshToken:
            raise BadGuestToken from None
        async with self._database.read_session() as store:
            guest_id = await store.get_guest_id(token.family_hash)
        if guest_id is None:
            raise BadGuestToken
        return PresentedGuest(guest_id, refresh_token=token)

    def _identify_by_access_token(self, guest_token: str) -> PresentedGuest:
        try:
            actor = self._verifier.verify(guest_token)
        except Unauthenticated:
            raise BadGuestToken from None
        if not actor.is_guest or actor.user_id is None:
            raise BadGuestToken
        return PresentedGuest(actor.user_id, session_id=actor.session_id)

    async def claim(
        self, store: Store, ctx: CallContext, presented: PresentedGuest, user_id: UUID
    ) -> Guest:
        """Claim the guest for the user, in the transaction of `store`; return the guest.

        Raises BadGuestToken, GuestAlreadyClaimed.
        """
        # the session is locked before the guest, as in the purge of sessions, to avoid deadlocks
        session = await store.get_guest_session_for_update(presented.guest_id)
        guest = await store.get_guest_for_update(presented.guest_id)
        now = self._clock()
        if guest is None:
            raise BadGuestToken
        if not guest.claim(user_id, now):
            return guest
        if session is None or not presented.is_accepted(session, now):
            raise BadGuestToken
        await store.save_claim(guest)
        await store.end_guest_session(guest.guest_id, now)
        await store.publish(GuestClaimed(guest_id=guest.guest_id, user_id=user_id), ctx)
        return guest


def log_claim(ctx: CallContext, guest: Guest) -> None:
    """Log a claim, after its commit."""
    log.info(
        "security.guest_claimed",
        **ctx.security_fields,
        subject=subject_of(guest),
        claimed_by=f"user:{guest.claimed_by}",
    )


class GuestService:
    """Implementation of `Guests`."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        claims: GuestClaims,
        token_pairs: TokenPairs,
        retention: timedelta,
        clock: Clock,
    ) -> None:
        """`retention` is the lifetime of a guest's session after the latest refresh."""
        self._database = database
        self._claims = claims
        self._token_pairs = token_pairs
        self._retention = retention
        self._clock = clock

    async def create_guest(self, ctx: CallContext) -> GuestTokens:
        now, token = self._clock(), RefreshToken.generate()
        guest = Guest(new_id(), created_at=now)
        session = Session.open_for_guest(new_id(), guest.guest_id, token, now, self._retention)
        async with self._database.transaction() as store:
            await store.add_guest(guest, session)
        pair = self._token_pairs.build(guest, session, token)
        return GuestTokens(guest_id=guest.guest_id, **dict(pair))

    async def claim_guest(
        self, ctx: CallContext, guest_token: str, attempt: IdempotentCommand
    ) -> GuestClaimView:
        presented = await self._claims.identify(guest_token)
        async with self._database.transaction() as store:
            user = await get_user_or_404(store, ctx.user_id)
            user.check_active()
            guest = await self._claims.claim(store, ctx, presented, user.user_id)
            view = to_claim_view(guest)
            await store.store_response(attempt, view)
        log_claim(ctx, guest)
        return view

    async def count_guests(self) -> int:
        async with self._database.read_session() as store:
            return await store.count_guests()
