from collections.abc import Sequence
from datetime import timedelta

import structlog
from dependency_injector import providers

from markethall.shared.composition.container import (
    ContextContainer,
    ContextTools,
    GetScopes,
    LifecycleHook,
    build_idempotency,
)
from markethall.shared.composition.context_persistence import ContextPersistence, database_of
from markethall.shared.composition.memory import build_memory_persistence
from markethall.shared.composition.providers import by_storage, singleton
from markethall.shared.composition.sql import build_sql_persistence
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.ids import new_id
from markethall.shared.persistence.database import Database
from markethall.shared.security.access_tokens import AccessTokenVerifier
from markethall.shared.security.passwords import Passwords
from markethall.users.contract import Accounts, Guests, Sessions, Users
from markethall.users.contract.errors import EmailTaken
from markethall.users.memory import MemoryUserStore, Tables
from markethall.users.ports import GuestTokenVerifier, ReadStore, Store, TokenSigner
from markethall.users.service.accounts import AccountService
from markethall.users.service.guests import GuestClaims, GuestService
from markethall.users.service.internal import InternalUserService
from markethall.users.service.jobs import SessionPurgeJob
from markethall.users.service.password_check import PasswordCheck
from markethall.users.service.sessions import SessionService
from markethall.users.service.views import TokenPairs
from markethall.users.settings import UsersSettings
from markethall.users.sql.store import SqlUserStore
from markethall.users.sql.tables import STATEMENTS

log = structlog.get_logger("markethall.app")

# the purge only frees space, because expired sessions are rejected in any case
SESSION_PURGE_INTERVAL = timedelta(minutes=1)


def _token_verifier(tools: ContextTools, clock: Clock) -> GuestTokenVerifier:
    signer = tools.access_token_signer()
    return AccessTokenVerifier(signer.jwks, signer.issuer, signer.audience, clock)


def _password_check(
    settings: UsersSettings,
    database: Database[ReadStore, Store],
    passwords: Passwords,
    signer: TokenSigner,
    clock: Clock,
) -> PasswordCheck:
    is_limited = settings.rate_limits == "on"
    return PasswordCheck(database, passwords, signer, clock, is_limited=is_limited)


def _get_current_scopes(sessions: Sessions) -> GetScopes:
    async def get_current_scopes(actor: Actor) -> frozenset[str]:
        ctx = CallContext(actor=actor, request_id=str(new_id()))
        return frozenset((await sessions.get_access(ctx)).scopes)

    return get_current_scopes


def _on_start(settings: UsersSettings, accounts: Accounts) -> Sequence[LifecycleHook]:
    async def create_first_admin() -> None:
        """Create the admin that the settings name, if no active admin exists."""
        password = settings.admin_password.get_secret_value()
        if not (settings.admin_email and password):
            return
        try:
            await accounts.create_first_admin(settings.admin_email, password)
        except EmailTaken as error:
            # Another user has this address. The application starts without an admin, because it
            # can still serve all users.
            log.warning("admin.bootstrap_skipped", email=settings.admin_email, reason=error.detail)

    return [create_first_admin]


def _on_close(passwords: Passwords) -> Sequence[LifecycleHook]:
    async def close_passwords() -> None:
        passwords.close()

    return [close_passwords]


class UsersContainer(ContextContainer):
    settings: providers.Dependency[UsersSettings] = providers.Dependency(instance_of=UsersSettings)
    tools, clock, cursors = ContextContainer.tools, ContextContainer.clock, ContextContainer.cursors

    persistence: providers.Selector[ContextPersistence[Database[ReadStore, Store]]] = by_storage(
        settings,
        memory=singleton(
            lambda clock: build_memory_persistence(Tables(), MemoryUserStore, clock), clock
        ),
        sql=singleton(
            lambda postgres, clock: build_sql_persistence(
                postgres, STATEMENTS, SqlUserStore, clock
            ),
            ContextContainer.postgres,
            clock,
        ),
    )
    database: providers.Singleton[Database[ReadStore, Store]] = singleton(database_of, persistence)
    idempotency = singleton(build_idempotency, persistence, settings, clock)

    signer = singleton(lambda tools: tools.access_token_signer(), tools)
    passwords = singleton(
        lambda settings: Passwords(settings.bcrypt_cost, workers=2, queue=64), settings
    )
    password_check = singleton(_password_check, settings, database, passwords, signer, clock)
    token_pairs = singleton(TokenPairs, signer)
    guest_retention = singleton(
        lambda settings: timedelta(days=settings.guest_retention_days), settings
    )
    guest_claims = singleton(GuestClaims, database, singleton(_token_verifier, tools, clock), clock)
    order_token_lifetime = singleton(
        lambda settings: timedelta(seconds=settings.order_token_ttl_seconds), settings
    )
    users: providers.Singleton[Users] = singleton(
        InternalUserService, database, signer, order_token_lifetime
    )
    accounts: providers.Singleton[Accounts] = singleton(
        AccountService, database, password_check, guest_claims, cursors, clock
    )
    guests: providers.Singleton[Guests] = singleton(
        GuestService, database, guest_claims, token_pairs, guest_retention, clock
    )
    sessions: providers.Singleton[Sessions] = singleton(
        SessionService, database, password_check, signer, guest_retention, clock
    )
    session_purge_job = singleton(
        SessionPurgeJob, database, clock, providers.Object(SESSION_PURGE_INTERVAL)
    )

    periodic_jobs = singleton(lambda job: [job.run_once], session_purge_job)
    counters = singleton(
        lambda accounts, guests: {"user_count": accounts.count, "guest_count": guests.count_guests},
        accounts,
        guests,
    )
    get_current_scopes = singleton(_get_current_scopes, sessions)
    on_start = singleton(_on_start, settings, accounts)
    on_close = singleton(_on_close, passwords)
