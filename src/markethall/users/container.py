"""The implementations of users."""

from datetime import timedelta
from functools import cached_property

import structlog

from markethall.shared.composition.container import ContextContainer, Counter
from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.memory import MemoryDatabase, build_memory_persistence
from markethall.shared.composition.sql import SqlDatabase, build_sql_persistence
from markethall.shared.kernel.call_context import Actor, CallContext
from markethall.shared.kernel.ids import new_id
from markethall.shared.messaging.context_worker import PeriodicJob
from markethall.shared.persistence.database import Database
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.security.passwords import Passwords
from markethall.users.contract import Accounts, EmailTaken, Sessions, Users
from markethall.users.memory import MemoryUserStore, Tables
from markethall.users.ports import ReadStore, Store, TokenSigner
from markethall.users.service import (
    AccountService,
    InternalUserService,
    SessionPurgeJob,
    SessionService,
)
from markethall.users.settings import UsersSettings
from markethall.users.sql import STATEMENTS, SqlUserStore

log = structlog.get_logger("markethall.app")

# purging only frees space, because expired sessions are rejected anyway
SESSION_PURGE_INTERVAL = timedelta(minutes=1)


class UsersContainer(ContextContainer[UsersSettings]):
    def build_memory_persistence(
        self,
    ) -> ContextPersistence[MemoryDatabase[Tables, MemoryUserStore]]:
        return build_memory_persistence(Tables(), MemoryUserStore, self.clock)

    def build_sql_persistence(
        self, postgres: Postgres
    ) -> ContextPersistence[SqlDatabase[SqlUserStore]]:
        return build_sql_persistence(postgres, STATEMENTS, SqlUserStore, self.clock)

    @cached_property
    def database(self) -> Database[ReadStore, Store]:
        database: Database[ReadStore, Store] = self.persistence.database
        return database

    @cached_property
    def signer(self) -> TokenSigner:
        return self.tools.access_token_signer()

    @cached_property
    def passwords(self) -> Passwords:
        return Passwords(self.settings.bcrypt_cost, workers=2, queue=64)

    @cached_property
    def users(self) -> Users:
        return InternalUserService(self.database)

    @cached_property
    def accounts(self) -> Accounts:
        return AccountService(self.database, self.passwords, self.cursors, self.clock)

    @cached_property
    def sessions(self) -> Sessions:
        return SessionService(self.database, self.passwords, self.signer, self.clock)

    @cached_property
    def session_purge_job(self) -> SessionPurgeJob:
        return SessionPurgeJob(self.database, self.clock, SESSION_PURGE_INTERVAL)

    @property
    def periodic_jobs(self) -> list[PeriodicJob]:
        return [self.session_purge_job.run_once]

    @property
    def counters(self) -> dict[str, Counter]:
        return {"user_count": self.accounts.count}

    async def get_current_scopes(self, actor: Actor) -> frozenset[str]:
        ctx = CallContext(actor=actor, request_id=str(new_id()))
        return frozenset((await self.sessions.get_access(ctx)).scopes)

    async def start(self) -> None:
        """Create the admin that the settings name, if no active admin exists."""
        password = self.settings.admin_password.get_secret_value()
        if not (self.settings.admin_email and password):
            return
        try:
            await self.accounts.create_first_admin(self.settings.admin_email, password)
        except EmailTaken as error:
            # another user has this address; the application starts without an admin, because
            # the other users can still work
            log.warning(
                "admin.bootstrap_skipped",
                email=self.settings.admin_email,
                reason=error.detail,
            )

    async def close(self) -> None:
        self.passwords.close()
