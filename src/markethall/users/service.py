"""The promises of users, kept in this process."""

from dataclasses import replace
from datetime import timedelta
from secrets import token_hex
from typing import Final
from uuid import UUID

from markethall.shared.auth import PROFILE, USERS_MANAGE, scopes_of
from markethall.shared.call import Actor, Call
from markethall.shared.clock import Clock
from markethall.shared.errors import Forbidden
from markethall.shared.idempotency import Attempt
from markethall.shared.ids import new_id
from markethall.shared.pages import Cursors, Page
from markethall.shared.passwords import Passwords
from markethall.shared.versions import Seen, check_seen
from markethall.users.contract import (
    Account,
    BadCredentials,
    BadRefreshToken,
    ChangeProfile,
    ChangeUser,
    Customer,
    EmailTaken,
    KeySet,
    Register,
    Role,
    TokenPair,
    UsernameTaken,
    UserNotFound,
)
from markethall.users.domain import (
    Names,
    RefreshToken,
    Session,
    Trade,
    User,
    check_password,
    key_of,
    known_role,
    login_key,
    username_from,
)
from markethall.users.ports import Database, Reads, Signer, Store

_LISTING: Final = "users"


class UsersService:
    """What the neighbours ask."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def active(self, call: Call, user_id: UUID) -> Customer:  # noqa: ARG002 - any caller
        async with self._database.reading() as reads:
            user = await _found(reads, user_id)
        user.check_active()
        return Customer(user_id=user.user_id, email=user.names.email, full_name=user.full_name)


class AccountService:
    """People."""

    def __init__(
        self, database: Database, passwords: Passwords, cursors: Cursors, clock: Clock
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._cursors = cursors
        self._clock = clock

    async def register(
        self,
        call: Call,  # noqa: ARG002 - anyone may
        command: Register,
        attempt: Attempt,
    ) -> Account:
        names = Names.checked(command.username, command.email)
        user = await self._new_user(attempt.id, names, command.password)
        user.describe(ChangeProfile(full_name=command.full_name, tags=command.tags))
        user.version = 1
        async with self._database.transaction() as store:
            account = _account(await _add(store, user))
            await store.finish(attempt, account)
        return account

    async def me(self, call: Call) -> Account:
        return _account(await self._myself(call))

    async def update_me(self, call: Call, change: ChangeProfile, seen: Seen) -> Account:
        async with self._database.transaction() as store:
            user = await _locked(store, call.user_id)
            user.check_active()
            check_seen(seen, user.version)
            user.describe(change)
            await store.save_user(user)
        return _account(user)

    async def change_password(self, call: Call, current: str, new: str) -> None:
        user = await self._myself(call)
        if not await self._passwords.verify(current, user.password_hash):
            raise BadCredentials("The current password is wrong.")
        check_password(new, user.names.username, user.names.email)
        hashed = await self._passwords.hash(new)
        async with self._database.transaction() as store:
            if not await store.change_password(user.user_id, user.password_hash, hashed):
                raise BadCredentials("The password was changed in the meantime.")
            await store.end_sessions(user.user_id, self._clock(), call.actor.session_id)

    async def users(
        self,
        call: Call,  # noqa: ARG002 - the route's policy has let them in
        limit: int,
        cursor: str | None,
    ) -> Page[Account]:
        position = self._cursors.decode(_LISTING, cursor)
        after = UUID(position[0]) if position else None
        async with self._database.reading() as reads:
            found = await reads.users(after, limit + 1)
        accounts = [_account(user) for user in found]
        return self._cursors.page(_LISTING, accounts, limit, lambda last: [str(last.user_id)])

    async def user(self, call: Call, user_id: UUID) -> Account:  # noqa: ARG002 - as above
        async with self._database.reading() as reads:
            return _account(await _found(reads, user_id))

    async def change_user(
        self,
        call: Call,
        user_id: UUID,
        change: ChangeUser,
        seen: Seen,
    ) -> Account:
        async with self._database.transaction() as store:
            # before the user's own row: two changes take both locks in the same order
            await store.lock_admins()
            await _check_still_admin(store, call)
            user = await _locked(store, user_id)
            check_seen(seen, user.version)
            await self._appoint(store, user, change)
        return _account(user)

    async def count(self) -> int:
        async with self._database.reading() as reads:
            return await reads.count()

    async def create_staff(
        self, email: str, role: str, password: str, username: str | None = None
    ) -> Account:
        user = await self._new_staff(email, role, password, username)
        async with self._database.transaction() as store:
            return _account(await _add_staff(store, user, named=username is not None))

    async def first_admin(self, email: str, password: str) -> Account | None:
        async with self._database.reading() as reads:
            if await reads.has_admin(besides=None):
                return None
        user = await self._new_staff(email, Role.ADMIN, password)
        async with self._database.transaction() as store:
            await store.lock_admins()
            # asked again: several processes may start at once
            if await store.has_admin(besides=None):
                return None
            return _account(await _add_staff(store, user, named=False))

    async def _myself(self, call: Call) -> User:
        async with self._database.reading() as reads:
            user = await _found(reads, call.user_id)
        user.check_active()
        return user

    async def _new_user(self, user_id: UUID, names: Names, password: str) -> User:
        check_password(password, names.username, names.email)
        hashed = await self._passwords.hash(password)
        return User(user_id, names, hashed, signup_date=self._clock())

    async def _new_staff(
        self, email: str, role: str, password: str, username: str | None = None
    ) -> User:
        names = Names.checked(username or username_from(email), email)
        roles = dict.fromkeys((Role.CUSTOMER, known_role(role)))
        user = await self._new_user(new_id(), names, password)
        user.roles = tuple(roles)
        return user

    async def _appoint(self, store: Store, user: User, change: ChangeUser) -> None:
        was_admin, was_active = user.is_admin, user.is_active
        user.appoint(change.roles, active=change.is_active)
        if was_admin and not user.is_admin:
            others = await store.has_admin(besides=user.user_id)
            user.check_admin_left(was_admin=was_admin, others=others)
        await store.save_user(user)
        if was_active and not user.is_active:
            await store.end_sessions(user.user_id, self._clock(), besides=None)


class SessionService:
    """Signing in and staying in."""

    def __init__(
        self, database: Database, passwords: Passwords, signer: Signer, clock: Clock
    ) -> None:
        self._database = database
        self._passwords = passwords
        self._signer = signer
        self._clock = clock

    async def sign_in(self, call: Call, name: str, password: str) -> TokenPair:  # noqa: ARG002 - anyone
        user = await self._named(name)
        # also for nobody: the time that it takes must not tell whether there is such a user
        good = await self._passwords.verify(password, user.password_hash if user else None)
        if user is None or not good or not user.is_active:
            raise BadCredentials
        token = RefreshToken.new()
        session = Session.opened(new_id(), user.user_id, token, self._clock())
        async with self._database.transaction() as store:
            if not await store.open_session(session, user.password_hash):
                raise BadCredentials
        return self._pair(user, session, token)

    async def refresh(self, call: Call, refresh_token: str) -> TokenPair:  # noqa: ARG002 - the token tells
        presented = RefreshToken.parse(refresh_token)
        fresh = RefreshToken.new(presented.family)
        async with self._database.transaction() as store:
            user, session, trade = await self._trade(store, presented, fresh)
        # only now: a reused token must have ended its session before it is refused
        if trade is not Trade.DONE:
            raise BadRefreshToken
        return self._pair(user, session, fresh)

    async def revoke(self, call: Call, refresh_token: str) -> None:  # noqa: ARG002 - as above
        try:
            token = RefreshToken.parse(refresh_token)
        except BadRefreshToken:
            return  # RFC 7009, section 2.2: a token that is none is revoked already
        async with self._database.transaction() as store:
            await store.end_session(token.family_hash, self._clock())

    async def key_set(self, call: Call) -> KeySet:  # noqa: ARG002 - public
        return KeySet.model_validate(self._signer.jwks())

    async def issuer(self) -> str:
        return self._signer.issuer

    async def fingerprint(self, secret: str) -> str:
        return self._signer.fingerprint(secret)

    async def _named(self, name: str) -> User | None:
        async with self._database.reading() as reads:
            # a user name holds no @
            if "@" in name:
                return await reads.user_by_email(login_key(name))
            return await reads.user_by_username(key_of(name))

    async def _trade(
        self, store: Store, presented: RefreshToken, fresh: RefreshToken
    ) -> tuple[User, Session, Trade]:
        found = await store.locked_session(presented.family_hash)
        if found is None:
            raise BadRefreshToken
        session, user = found
        if not user.is_active:
            raise BadRefreshToken
        trade = session.trade(presented, fresh, self._clock())
        if trade is not Trade.REFUSED:
            await store.save_session(session)
        return user, session, trade

    def _pair(self, user: User, session: Session, token: RefreshToken) -> TokenPair:
        # whoever can sign in may see their own account, whatever their roles are
        scopes = scopes_of(user.roles) | {PROFILE}
        actor = Actor(
            user_id=user.user_id,
            roles=user.roles,
            scopes=scopes,
            session_id=session.session_id,
        )
        return TokenPair(
            access_token=self._signer.sign(actor),
            expires_in=int(self._signer.lifetime.total_seconds()),
            refresh_token=token.text,
            scope=" ".join(sorted(scopes)),
        )


class SessionPurge:
    """Forgets sessions that have expired."""

    def __init__(self, database: Database, clock: Clock, every: timedelta) -> None:
        self._database = database
        self._clock = clock
        self._every = every
        self._next = clock()

    async def sweep(self) -> None:
        now = self._clock()
        if now < self._next:
            return
        self._next = now + self._every
        async with self._database.transaction() as store:
            await store.purge_sessions(now)


async def _found(reads: Reads, user_id: UUID) -> User:
    user = await reads.user(user_id)
    if user is None:
        raise UserNotFound(user_id=str(user_id))
    return user


async def _locked(store: Store, user_id: UUID) -> User:
    user = await store.locked_user(user_id)
    if user is None:
        raise UserNotFound(user_id=str(user_id))
    return user


async def _add(store: Store, user: User) -> User:
    """The user as stored; an earlier attempt's, where there was one."""
    if await store.add_user(user):
        return user
    others = await store.namesakes(user.user_id, user.names)
    for other in others:
        if other.user_id == user.user_id:
            return other
    if any(other.names.username_key == user.names.username_key for other in others):
        raise UsernameTaken(username=user.names.username)
    raise EmailTaken


async def _add_staff(store: Store, user: User, *, named: bool) -> User:
    """Whoever chose no name gets another when it is taken."""
    try:
        return await _add(store, user)
    except UsernameTaken:
        if named:
            raise
    user.names = replace(user.names, username=f"{user.names.username}-{token_hex(3)}")
    return await _add(store, user)


def _account(user: User) -> Account:
    return Account(
        user_id=user.user_id,
        username=user.names.username,
        email=user.names.email,
        full_name=user.full_name,
        tags=user.tags,
        roles=user.roles,
        is_active=user.is_active,
        email_verified=user.email_verified,
        signup_date=user.signup_date,
        version=user.version,
    )


async def _check_still_admin(store: Store, call: Call) -> None:
    """The token may be older than the dismissal of who bears it. Raises Forbidden."""
    boss = await store.user(call.user_id) if call.actor.user_id else None
    if boss is not None and not boss.is_admin:
        raise Forbidden(scope=USERS_MANAGE)
