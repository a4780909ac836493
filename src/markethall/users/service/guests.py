"""Guests: create them, and claim them for a user."""

from datetime import timedelta

from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.database import Database
from markethall.users.contract import GuestClaimView, GuestTokens
from markethall.users.domain import Guest, RefreshToken, Session
from markethall.users.ports import ReadStore, Store
from markethall.users.service.guest_claims import GuestClaims, log_claim
from markethall.users.service.token_pairs import TokenPairs
from markethall.users.service.views import get_user_or_404, to_claim_view


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
