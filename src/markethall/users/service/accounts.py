"""Accounts: registration, profiles, roles."""

from dataclasses import replace
from secrets import token_hex
from typing import Final
from uuid import UUID

import structlog
from pydantic import TypeAdapter

from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.errors import Forbidden
from markethall.shared.kernel.etags import ExpectedVersions, check_expected_version
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import Cursors, Page
from markethall.shared.kernel.scopes import ORDERS_MANAGE, USERS_MANAGE
from markethall.shared.persistence.database import Database
from markethall.users.contract import (
    ChangeProfile,
    ChangeUser,
    Register,
    Role,
    UserNotFound,
    UserView,
)
from markethall.users.contract.errors import BadCredentials, EmailTaken, UsernameTaken
from markethall.users.domain.user import (
    User,
    UserIdentity,
    check_password,
    derive_username,
    parse_role,
)
from markethall.users.ports import ReadStore, Store
from markethall.users.service.guests import GuestClaims, log_claim
from markethall.users.service.password_check import PasswordCheck
from markethall.users.service.views import get_user_for_update_or_404, get_user_or_404, to_user_view

log = structlog.get_logger("markethall.security")

_LIST_NAME: Final = "users"
_USER_KEYSET: Final = TypeAdapter(UUID)


class AccountService:
    """Implementation of `Accounts`."""

    def __init__(
        self,
        database: Database[ReadStore, Store],
        password_check: PasswordCheck,
        claims: GuestClaims,
        cursors: Cursors,
        clock: Clock,
    ) -> None:
        self._database = database
        self._password_check = password_check
        self._claims = claims
        self._cursors = cursors
        self._clock = clock

    async def register(
        self, ctx: CallContext, command: Register, attempt: IdempotentCommand
    ) -> UserView:
        identity = UserIdentity.parse(command.username, command.email)
        guest_token = command.guest_token
        presented = await self._claims.identify(guest_token) if guest_token else None
        user = await self._build_user(attempt.id, identity, command.password)
        user.update_profile(ChangeProfile(full_name=command.full_name, tags=command.tags))
        # `update_profile` may have incremented the version, but a new user has version 1
        user.version = 1
        guest = None
        async with self._database.transaction() as store:
            user_view = to_user_view(await _add_user(store, user))
            if presented:
                guest = await self._claims.claim(store, ctx, presented, user_view.user_id)
            await store.store_response(attempt, user_view)
        if guest:
            log_claim(ctx, guest)
        return user_view

    async def get_me(self, ctx: CallContext) -> UserView:
        return to_user_view(await self._get_caller(ctx))

    async def update_me(
        self, ctx: CallContext, change: ChangeProfile, expected_versions: ExpectedVersions
    ) -> UserView:
        async with self._database.transaction() as store:
            user = await get_user_for_update_or_404(store, ctx.user_id)
            user.check_active()
            check_expected_version(expected_versions, user.version)
            user.update_profile(change)
            await store.save_user(user)
        return to_user_view(user)

    async def change_password(
        self, ctx: CallContext, current_password: str, new_password: str
    ) -> None:
        user = await self._get_caller(ctx)
        # checked first, because the attempt counts as failed until the transaction below
        check_password(new_password, user.identity.username, user.identity.email)
        attempt = await self._password_check.verify(
            ctx, user.identity.username_key, user, current_password
        )
        new_hash = await self._password_check.hash(new_password)
        async with self._database.transaction() as store:
            if not await store.change_password(user.user_id, user.password_hash, new_hash):
                raise BadCredentials("The password was changed in the meantime.")
            await self._password_check.succeed(store, attempt)
            await store.end_sessions(user.user_id, self._clock(), ctx.actor.session_id)
        log.info("security.password_changed", **ctx.security_fields, subject=_subject(user))

    async def list_users(self, ctx: CallContext, limit: int, cursor: str | None) -> Page[UserView]:
        after = self._cursors.decode(_LIST_NAME, cursor, _USER_KEYSET)
        async with self._database.read_session() as store:
            users = await store.list_users(after, limit + 1)
        views = [to_user_view(user) for user in users]
        return self._cursors.build_page(_LIST_NAME, views, limit, lambda user: user.user_id)

    async def get_user(self, ctx: CallContext, user_id: UUID) -> UserView:
        if not ctx.can_view(user_id, USERS_MANAGE) and not ctx.actor.has_scope(ORDERS_MANAGE):
            raise UserNotFound(user_id=str(user_id))
        async with self._database.read_session() as store:
            return to_user_view(await get_user_or_404(store, user_id))

    async def change_user(
        self,
        ctx: CallContext,
        user_id: UUID,
        change: ChangeUser,
        expected_versions: ExpectedVersions,
    ) -> UserView:
        async with self._database.transaction() as store:
            # transactions that take both locks take this one before the lock on the user's row, so
            # that they cannot deadlock
            await store.lock_admins()
            await _check_caller_is_still_admin(store, ctx)
            user = await get_user_for_update_or_404(store, user_id)
            check_expected_version(expected_versions, user.version)
            before = replace(user)
            await self._update_access(store, user, change)
        _log_access_change(ctx, before, user)
        return to_user_view(user)

    async def count(self) -> int:
        async with self._database.read_session() as store:
            return await store.count()

    async def create_staff(
        self, email: str, role: str, password: str, username: str | None = None
    ) -> UserView:
        user = await self._build_staff_user(email, role, password, username)
        async with self._database.transaction() as store:
            return to_user_view(
                await _add_staff_user(store, user, has_chosen_username=username is not None)
            )

    async def create_first_admin(self, email: str, password: str) -> UserView | None:
        async with self._database.read_session() as store:
            if await store.has_active_admin(except_user_id=None):
                return None
        user = await self._build_staff_user(email, Role.ADMIN, password)
        async with self._database.transaction() as store:
            await store.lock_admins()
            # another process may have created an admin before this one got the lock
            if await store.has_active_admin(except_user_id=None):
                return None
            return to_user_view(await _add_staff_user(store, user, has_chosen_username=False))

    async def _get_caller(self, ctx: CallContext) -> User:
        async with self._database.read_session() as store:
            user = await get_user_or_404(store, ctx.user_id)
        user.check_active()
        return user

    async def _build_user(self, user_id: UUID, identity: UserIdentity, password: str) -> User:
        check_password(password, identity.username, identity.email)
        password_hash = await self._password_check.hash(password)
        return User(user_id, identity, password_hash, signup_date=self._clock())

    async def _build_staff_user(
        self, email: str, role: str, password: str, username: str | None = None
    ) -> User:
        identity = UserIdentity.parse(username or derive_username(email), email)
        roles = dict.fromkeys((Role.CUSTOMER, parse_role(role)))
        user = await self._build_user(new_id(), identity, password)
        user.roles = tuple(roles)
        return user

    async def _update_access(self, store: Store, user: User, change: ChangeUser) -> None:
        was_admin, was_active = user.is_active_admin, user.is_active
        user.update_access(change.roles, is_active=change.is_active)
        if was_admin and not user.is_active_admin:
            has_other_admins = await store.has_active_admin(except_user_id=user.user_id)
            user.check_admin_remains(was_admin=was_admin, has_other_admins=has_other_admins)
        await store.save_user(user)
        if was_active and not user.is_active:
            await store.end_sessions(user.user_id, self._clock(), except_session_id=None)


async def _add_user(store: Store, user: User) -> User:
    """Insert the user, or return the user that an earlier attempt inserted.

    Raises UsernameTaken, EmailTaken.
    """
    if await store.add_user(user):
        return user
    conflicts = await store.find_conflicts(user.user_id, user.identity)
    for other in conflicts:
        if other.user_id == user.user_id:
            return other
    if any(other.identity.username_key == user.identity.username_key for other in conflicts):
        raise UsernameTaken(username=user.identity.username)
    raise EmailTaken


async def _add_staff_user(store: Store, user: User, *, has_chosen_username: bool) -> User:
    """Insert the user. If a derived user name is taken, add a random suffix to it."""
    try:
        return await _add_user(store, user)
    except UsernameTaken:
        if has_chosen_username:
            raise
    user.identity = replace(user.identity, username=f"{user.identity.username}-{token_hex(3)}")
    return await _add_user(store, user)


async def _check_caller_is_still_admin(store: Store, ctx: CallContext) -> None:
    """Raises Forbidden when the caller has lost the role admin since the token was issued."""
    caller = await store.get_user(ctx.user_id) if ctx.actor.user_id else None
    if caller is not None and not caller.is_active_admin:
        raise Forbidden(scope=USERS_MANAGE)


def _subject(user: User) -> str:
    return f"user:{user.user_id}"


def _log_access_change(ctx: CallContext, before: User, after: User) -> None:
    fields = {**ctx.security_fields, "subject": _subject(after)}
    if before.roles != after.roles:
        log.info("security.roles_changed", **fields, before=before.roles, after=after.roles)
    if before.is_active and not after.is_active:
        log.info("security.account_disabled", **fields)
    if after.is_active and not before.is_active:
        log.info("security.account_enabled", **fields)
