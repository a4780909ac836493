from datetime import timedelta
from functools import partial

import structlog

from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Unauthenticated
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.key_derivation import KeyPurpose
from markethall.shared.persistence.database import Database
from markethall.users.contract import AccessView, JwkSet, TokenPair
from markethall.users.contract.errors import BadCredentials, BadRefreshToken
from markethall.users.domain.session import Digest, RefreshToken, RotationResult, Session
from markethall.users.domain.user import Guest, User, to_login_key
from markethall.users.ports import ReadStore, Store, TokenSigner
from markethall.users.service.password_check import PasswordCheck, log_failed_login
from markethall.users.service.views import TokenPairs, scopes_of, subject_of

log = structlog.get_logger("markethall.security")


class SessionService:
    """Implementation of `Sessions`."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        password_check: PasswordCheck,
        signer: TokenSigner,
        guest_retention: timedelta,
        clock: Clock,
    ) -> None:
        self._database = database
        self._password_check = password_check
        self._signer = signer
        self._token_pairs = TokenPairs(signer)
        self._guest_retention = guest_retention
        self._clock = clock

    async def sign_in(self, ctx: CallContext, login: str, password: str) -> TokenPair:
        login_key = to_login_key(login)
        user = await self._find_user(login, login_key)
        attempt = await self._password_check.verify(ctx, login_key, user, password)
        if user is None or not user.is_active:
            log_failed_login(ctx, user, "disabled")
            raise BadCredentials
        token = RefreshToken.generate()
        session = Session.open(new_id(), user.user_id, token, self._clock(), attempt.network_hash)
        async with self._database.transaction() as store:
            if not await store.open_session(session, user.password_hash):
                raise BadCredentials
            await self._password_check.succeed(store, attempt)
        return self._token_pairs.build(user, session, token)

    async def refresh(self, ctx: CallContext, refresh_token: str) -> TokenPair:
        presented = RefreshToken.parse(refresh_token)
        digest = partial(self._signer.digest, KeyPurpose.REFRESH_TOKEN)
        async with self._database.transaction() as store:
            owner, session, result = await self._rotate(store, presented, digest)
        # raised after the commit, because an error in the transaction would undo the revocation
        if result is RotationResult.REUSED:
            log.warning(
                "security.refresh_token_reused",
                **ctx.security_fields,
                subject=subject_of(owner),
                session_id=str(session.session_id),
            )
        if result is not RotationResult.ROTATED:
            raise BadRefreshToken
        return self._token_pairs.build(owner, session, session.current_token(presented, digest))

    async def revoke(self, ctx: CallContext, refresh_token: str) -> None:
        try:
            token = RefreshToken.parse(refresh_token)
        except BadRefreshToken:
            return  # RFC 7009, section 2.2: an invalid token needs no revocation
        async with self._database.transaction() as store:
            await store.end_session(token.family_hash, self._clock())

    async def get_access(self, ctx: CallContext) -> AccessView:
        actor = ctx.actor
        async with self._database.read_session() as store:
            user = await store.get_user(ctx.user_id)
            is_open = actor.session_id is None or await store.is_session_open(
                actor.session_id, self._clock()
            )
        if user is None or not user.is_active or not is_open:
            raise Unauthenticated(
                "The account is disabled, or the session has ended.", reason="revoked"
            )
        scopes = scopes_of(user)
        return AccessView(user_id=user.user_id, roles=user.roles, scopes=tuple(sorted(scopes)))

    async def get_jwks(self, ctx: CallContext) -> JwkSet:
        return JwkSet.model_validate(self._signer.jwks())

    async def get_issuer(self) -> str:
        return self._signer.issuer

    async def compute_fingerprint(self, secret: str) -> str:
        return self._signer.digest(KeyPurpose.REGISTRATION, secret).hex()

    async def _find_user(self, login: str, login_key: str) -> User | None:
        async with self._database.read_session() as store:
            if "@" in login:
                return await store.get_user_by_email(login_key)
            return await store.get_user_by_username(login_key)

    async def _rotate(
        self, store: Store, presented: RefreshToken, digest: Digest
    ) -> tuple[User | Guest, Session, RotationResult]:
        found = await store.get_session_for_update(presented.family_hash)
        if found is None:
            raise BadRefreshToken
        session, owner = found
        if not owner.is_active:
            raise BadRefreshToken
        now = self._clock()
        result = session.rotate(presented, digest, now)
        if result is RotationResult.ROTATED and session.guest_id:
            session.extend(now, self._guest_retention)
        if result is not RotationResult.REJECTED:
            await store.save_session(session)
        return owner, session, result
