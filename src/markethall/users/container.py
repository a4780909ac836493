"""Which implementation stands behind each promise of users."""

from datetime import timedelta
from typing import Any

from dependency_injector import containers, providers

from markethall.shared.backend import Backend
from markethall.shared.clock import Clock
from markethall.shared.db import Postgres
from markethall.shared.idempotency import Keys
from markethall.shared.memory import MemoryDatabase, memory_backend
from markethall.shared.pages import Cursors
from markethall.shared.passwords import Passwords
from markethall.shared.sql import SqlDatabase, sql_backend
from markethall.shared.steward import Sweep
from markethall.shared.wire import Wire
from markethall.users.contract import Accounts, Sessions, Users
from markethall.users.memory import MemoryStore, Tables
from markethall.users.ports import Database, Signer
from markethall.users.remote import RemoteUsers
from markethall.users.service import AccountService, SessionPurge, SessionService, UsersService
from markethall.users.sql import STATEMENTS, SqlStore

# what is forgotten a minute late was refused all the same
PURGE_EVERY = timedelta(minutes=1)


def _in_memory(clock: Clock) -> Backend[MemoryDatabase[Tables, MemoryStore]]:
    return memory_backend(Tables(), MemoryStore, clock)


def _in_sql(postgres: Postgres, clock: Clock) -> Backend[SqlDatabase[SqlStore]]:
    return sql_backend(postgres, STATEMENTS, SqlStore, clock)


class UsersContainer(containers.DeclarativeContainer):
    config = providers.Configuration(strict=True)
    postgres: providers.Dependency[Postgres] = providers.Dependency()
    clock: providers.Dependency[Clock] = providers.Dependency()
    signer: providers.Dependency[Signer] = providers.Dependency()
    passwords: providers.Dependency[Passwords] = providers.Dependency()
    cursors: providers.Dependency[Cursors] = providers.Dependency()
    remote_wire: providers.Dependency[Wire] = providers.Dependency()

    backend: providers.Selector[Backend[Any]] = providers.Selector(
        config.storage,
        memory=providers.Singleton(_in_memory, clock),
        sql=providers.Singleton(_in_sql, postgres, clock),
    )
    database: providers.Callable[Database] = providers.Callable(
        lambda backend: backend.database, backend
    )

    here: providers.Singleton[Users] = providers.Singleton(UsersService, database)
    elsewhere: providers.Singleton[Users] = providers.Singleton(RemoteUsers, remote_wire)
    users: providers.Selector[Users] = providers.Selector(
        config.where, local=here, remote=elsewhere
    )
    accounts: providers.Singleton[Accounts] = providers.Singleton(
        AccountService, database, passwords, cursors, clock
    )
    sessions: providers.Singleton[Sessions] = providers.Singleton(
        SessionService, database, passwords, signer, clock
    )
    keys: providers.Singleton[Keys] = providers.Singleton(
        Keys,
        backend.provided.claims,
        clock,
        providers.Factory(timedelta, seconds=config.idempotency_lease),
    )
    purge: providers.Singleton[SessionPurge] = providers.Singleton(
        SessionPurge, database, clock, PURGE_EVERY
    )
    sweeps: providers.Provider[list[Sweep]] = providers.List(purge.provided.sweep)
    handlers: providers.Provider[dict[str, Any]] = providers.Dict()
