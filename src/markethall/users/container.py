"""The container of users: chooses the implementation of each port."""

from datetime import timedelta
from typing import Any

from dependency_injector import containers, providers

from markethall.shared.composition.context_persistence import ContextPersistence
from markethall.shared.composition.memory import MemoryDatabase, build_memory_persistence
from markethall.shared.composition.sql import SqlDatabase, build_sql_persistence
from markethall.shared.idempotency.service import IdempotencyService
from markethall.shared.kernel.clock import Clock
from markethall.shared.kernel.pagination import Cursors
from markethall.shared.messaging.context_worker import PeriodicJob
from markethall.shared.persistence.postgres import Postgres
from markethall.shared.rpc.client import RpcClient
from markethall.shared.security.passwords import Passwords
from markethall.users.contract import Accounts, Sessions, Users
from markethall.users.memory import MemoryUserStore, Tables
from markethall.users.ports import Database, TokenSigner
from markethall.users.remote import RemoteUsers
from markethall.users.service import (
    AccountService,
    InternalUserService,
    SessionPurgeJob,
    SessionService,
)
from markethall.users.sql import STATEMENTS, SqlUserStore

# expired sessions are refused before they are purged, so this only bounds the table size
SESSION_PURGE_INTERVAL = timedelta(minutes=1)


def _memory_persistence(
    clock: Clock,
) -> ContextPersistence[MemoryDatabase[Tables, MemoryUserStore]]:
    return build_memory_persistence(Tables(), MemoryUserStore, clock)


def _sql_persistence(
    postgres: Postgres, clock: Clock
) -> ContextPersistence[SqlDatabase[SqlUserStore]]:
    return build_sql_persistence(postgres, STATEMENTS, SqlUserStore, clock)


class UsersContainer(containers.DeclarativeContainer):
    config = providers.Configuration(strict=True)
    postgres: providers.Dependency[Postgres] = providers.Dependency()
    clock: providers.Dependency[Clock] = providers.Dependency()
    signer: providers.Dependency[TokenSigner] = providers.Dependency()
    passwords: providers.Dependency[Passwords] = providers.Dependency()
    cursors: providers.Dependency[Cursors] = providers.Dependency()
    rpc_client: providers.Dependency[RpcClient] = providers.Dependency()

    persistence: providers.Selector[ContextPersistence[Any]] = providers.Selector(
        config.storage,
        memory=providers.Singleton(_memory_persistence, clock),
        sql=providers.Singleton(_sql_persistence, postgres, clock),
    )
    database: providers.Callable[Database] = providers.Callable(
        lambda persistence: persistence.database, persistence
    )

    local_users: providers.Singleton[Users] = providers.Singleton(InternalUserService, database)
    remote_users: providers.Singleton[Users] = providers.Singleton(RemoteUsers, rpc_client)
    users: providers.Selector[Users] = providers.Selector(
        config.mode, local=local_users, remote=remote_users
    )
    accounts: providers.Singleton[Accounts] = providers.Singleton(
        AccountService, database, passwords, cursors, clock
    )
    sessions: providers.Singleton[Sessions] = providers.Singleton(
        SessionService, database, passwords, signer, clock
    )
    idempotency: providers.Singleton[IdempotencyService] = providers.Singleton(
        IdempotencyService,
        persistence.provided.idempotency_store,
        clock,
        providers.Factory(timedelta, seconds=config.idempotency_lease),
    )
    session_purge_job: providers.Singleton[SessionPurgeJob] = providers.Singleton(
        SessionPurgeJob, database, clock, SESSION_PURGE_INTERVAL
    )
    periodic_jobs: providers.Provider[list[PeriodicJob]] = providers.List(
        session_purge_job.provided.run_once
    )
    handlers: providers.Provider[dict[str, Any]] = providers.Dict()
