"""The resources that commands need: settings, database and container."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import typer

from markethall.cli.console import err, fail, print_note
from markethall.contexts import context_names
from markethall.settings import Settings, read_settings
from markethall.shared.composition.settings import SettingsError

if TYPE_CHECKING:
    from markethall.container import ApplicationContainer

T = TypeVar("T")

_INVALID_INPUT_STATUSES: Final = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}


@contextmanager
def open_database(settings: Settings, *, attach_to_running: bool = False) -> Iterator[Settings]:
    """Yield settings with a database: the configured one, or an embedded Postgres.

    Raises EmbeddedBusy if another process already runs the embedded Postgres. If
    `attach_to_running` is true, the settings contain the URL of that server instead. Memory storage
    needs no database.
    """
    if settings.storage == "memory" or all(settings.database_url_of(c) for c in settings.contexts):
        yield settings
        return
    from markethall.local.errors import EmbeddedBusy
    from markethall.local.postgres import EmbeddedPostgres

    _remove_libpq_environment()
    server = EmbeddedPostgres(settings.data_directory, on_failure=_shut_down, report=print_note)
    with exit_on_sigterm():
        try:
            url = server.start()
        except EmbeddedBusy:
            if not attach_to_running:
                raise
            url = server.running_url()
        os.environ["MARKETHALL_DATABASE_URL"] = url
        try:
            yield read_settings()
        finally:
            server.stop()


def _remove_libpq_environment() -> None:
    """Remove the variables of libpq, such as PGSSLMODE, which do not fit the embedded server."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]


def check_context(name: str) -> None:
    """Raises SettingsError for a context that is not installed."""
    if name not in context_names():
        fail(f"{name}: is not one of the contexts {', '.join(context_names())}")


@contextmanager
def redis(settings: Settings) -> Iterator[Settings]:
    """Yield settings with a Redis URL: the configured one, or the URL of an embedded Valkey."""
    if settings.redis_url.get_secret_value():
        yield settings
        return
    from markethall.local.valkey import EmbeddedValkey

    with EmbeddedValkey(settings.data_directory, on_failure=_shut_down) as url:
        os.environ["MARKETHALL_REDIS_URL"] = url
        yield read_settings()


def _shut_down() -> None:
    """Send SIGTERM to this process, because an embedded server has failed.

    The context manager of the failed server then stops it and raises the error.
    """
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Raise SystemExit on SIGTERM, so that context managers stop the embedded servers."""

    def raise_system_exit(*_: object) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    previous_handler = signal.signal(signal.SIGTERM, raise_system_exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


def migrate_if_development(settings: Settings) -> None:
    """Upgrade the schemas in development. In production a separate job runs `migrate`."""
    if settings.storage == "sql" and settings.environment == "development":
        migrate(settings, sorted(settings.contexts))


def refuse_relocated(settings: Settings) -> None:
    """Raises SettingsError if the data of a served context was relocated.

    A database that does not respond is ignored here, because readiness reports it later.
    """
    from markethall.schema_state import relocated_contexts, relocated_message

    if settings.storage == "memory":
        return
    messages = [
        relocated_message(context)
        for url, contexts in settings.contexts_by_database.items()
        for context in asyncio.run(relocated_contexts(settings.direct_urls.get(url, url), contexts))
    ]
    if messages:
        raise SettingsError(messages)


def migrate(settings: Settings, contexts: list[str]) -> None:
    from markethall.cli.database_wait import wait_for_database
    from markethall.schema_state import upgrade_outdated

    by_url: dict[str, list[str]] = {}
    for context in contexts:
        by_url.setdefault(settings.database_direct_url_of(context), []).append(context)
    for url, contexts_of_url in by_url.items():
        wait_for_database(url, print_note)
        upgrade_outdated(url, contexts_of_url)


def run_with_container(
    work: Callable[["ApplicationContainer"], Awaitable[T]], *, migrates: bool = True
) -> T:
    """Run the work with the container that the server would use.

    In development, this function migrates the schemas first, unless `migrates` is false.
    """
    settings = read_settings()
    if settings.storage == "memory":
        fail("MARKETHALL_STORAGE: this command needs a database; memory ends with its process")
    with open_database(settings, attach_to_running=True) as settings:
        if migrates:
            migrate_if_development(settings)
        return asyncio.run(_with_container(settings, work))


async def _with_container(
    settings: Settings, work: Callable[["ApplicationContainer"], Awaitable[T]]
) -> T:
    from markethall.container import ApplicationContainer
    from markethall.secret_keys import load_or_create_secrets
    from markethall.shared.kernel.errors import DomainError

    container = ApplicationContainer(settings, load_or_create_secrets(settings))
    try:
        await container.process.databases().open()
        return await work(container)
    except DomainError as error:
        if error.status in _INVALID_INPUT_STATUSES:
            fail(error.detail)
        err.print(f"[red]refused[/] {error.detail}")
        raise typer.Exit(1) from None
    finally:
        await container.close()
