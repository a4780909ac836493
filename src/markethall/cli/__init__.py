"""The command line: markethall serve | migrate | create-staff | demo | events | …"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar
from uuid import UUID

import typer
from rich.console import Console

from markethall import __version__
from markethall.settings import BadSettings, Settings, read_settings
from markethall.topology import Context
from markethall.whereabouts import places, ways, wrong_addresses

if TYPE_CHECKING:
    from markethall.loading import Loaded

T = TypeVar("T")

cli = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Markethall: users, inventory, orders and payments under one roof.",
)
events = typer.Typer(no_args_is_help=True, help="Dead letters and replays.")
cli.add_typer(events, name="events")

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

BAD_SETTINGS = 2


def main() -> None:
    """Entry point. Bad settings: one line each on stderr, exit code 2."""
    try:
        cli()
    except BadSettings as error:
        _say_what_is_wrong(error.lines)
        sys.exit(BAD_SETTINGS)
    except OSError as error:
        _say_what_is_wrong([str(error)])
        sys.exit(1)
    except RuntimeError as error:
        if not _is_embedded_error(error):
            raise
        _say_what_is_wrong([str(error)])
        sys.exit(1)


@cli.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version")] = False,
) -> None:
    if show:
        out.print(__version__)
        raise typer.Exit


@cli.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Address to listen on", envvar="MARKETHALL_HOST")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on", min=0, max=65535, envvar="MARKETHALL_PORT")
    ] = 8000,
    workers: Annotated[int, typer.Option(help="Processes", min=1)] = 1,
    memory: Annotated[bool, typer.Option("--memory", help="Keep everything in memory")] = False,
) -> None:
    """Serve the hall: on an embedded Postgres, on MARKETHALL_DATABASE_URL, or in memory."""
    if memory:
        os.environ["MARKETHALL_STORAGE"] = "memory"
    settings = _settings()
    _check_workers(settings, workers)
    if wrong := wrong_addresses(settings, host, port):
        raise BadSettings(wrong)
    embedded = _is_embedded(settings)
    # a stall that has moved out may stand beside the hall, on the hall's own Postgres
    with _database(settings, beside=settings.serve != set(Context)) as settings:
        _prepare(settings)
        _banner(settings, f"http://{host}:{port}", embedded=embedded)
        # here and not above: the other commands need not wait for the web framework
        from markethall import server  # noqa: PLC0415 - see serve

        code = server.serve(settings, host, port, workers)
    raise typer.Exit(code)


@cli.command()
def apart(
    host: Annotated[
        str, typer.Option(help="Address to listen on", envvar="MARKETHALL_HOST")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port to listen on", min=0, max=65535, envvar="MARKETHALL_PORT")
    ] = 8000,
) -> None:
    """Serve the hall as four processes behind one port, to see the split on one machine."""
    # here and not above: the other commands need not wait for the web framework
    from markethall.apart import serving  # noqa: PLC0415 - see serve

    settings = _settings()
    serving.check(settings)
    data = serving.where_the_data_lies(settings)
    with (
        _ending_on_sigterm(),
        _database(settings) as settings,
        serving.broker(settings) as settings,
    ):
        _prepare(settings)
        code = serving.serve(settings, host, port, data, partial(err.print, markup=False))
    raise typer.Exit(code)


def _check_workers(settings: Settings, workers: int) -> None:
    if settings.storage == "memory" and workers > 1:
        _refuse("--workers: memory storage serves one process and one worker")
    if workers > 1 and not settings.redis_url.get_secret_value():
        err.print(
            "[yellow]note[/] without MARKETHALL_REDIS_URL each worker has its own cache and limits"
        )


@cli.command()
def migrate(
    context: Annotated[
        list[Context] | None, typer.Option(help="Only these contexts; default: all served")
    ] = None,
) -> None:
    """Bring the schema up to date."""
    with _database(_settings(), beside=True) as settings:
        _migrate(settings, context or sorted(settings.serve))
        out.print("The schema is up to date.")


@cli.command()
def move(
    context: Context,
    to: Annotated[
        str, typer.Option(help="A Postgres address, or a name for a new database on this server")
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Even if a process seems to serve the context")
    ] = False,
) -> None:
    """Move one context's data into another database, and print that one's address."""
    from markethall import moving  # noqa: PLC0415 - see serve

    settings = _settings()
    if settings.storage == "memory":
        _refuse("MARKETHALL_STORAGE: memory cannot be moved")
    given = nullcontext(settings) if settings.database_of(context) else None
    with given or _database(settings, beside=True) as settings:
        source = settings.database_of(context)
        try:
            url = asyncio.run(moving.move(context, source, to, force=force, say=_note))
        except moving.MoveFailed as error:
            _say_what_is_wrong([str(error)])
            raise typer.Exit(1) from None
    print(url)


def _note(line: str) -> None:
    """To people: what is on standard output may go into a variable."""
    err.print(line, markup=False)


@cli.command()
def topology() -> None:
    """Show who runs where, and what carries calls and events between them, by these settings."""
    settings = _settings()
    for place in places(settings):
        out.print(f"{place.context:10}{'here' if place.here else 'remote':8}{place.at}")
    for way in ways(settings):
        out.print(f"{way.source} -> {way.target}: {way.what} {way.by}")


@cli.command()
def create_staff(
    email: str,
    role: Annotated[str, typer.Option(help="admin, staff, staff:catalogue, …")] = "staff",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input")
    ] = False,
) -> None:
    """Make an account for somebody who works here."""
    password = sys.stdin.readline().rstrip("\n") if password_stdin else _ask_password()

    async def create(container: Any) -> str:
        user = await container.accounts().create_staff(email, role, password)
        return f"{user.username} ({email}) is {role} now."

    out.print(_in_hall(create))


@cli.command()
def demo(
    products: Annotated[
        int, typer.Option(help="A large market of so many products instead", min=0)
    ] = 0,
) -> None:
    """Fill the shop with a small catalogue and stock. Run twice, it adds nothing."""
    if products:
        _fill_market(products)
        return
    from markethall import demo as catalogue  # noqa: PLC0415 - see serve
    from markethall.shared.call import system_call  # noqa: PLC0415 - see serve

    async def fill(container: Any) -> int:
        return await catalogue.fill(
            container.catalogue(), container.stockroom(), system_call("demo")
        )

    out.print(f"{_in_hall(fill)} products added.")


def _fill_market(products: int) -> None:
    from markethall import demo as catalogue  # noqa: PLC0415 - see serve
    from markethall import loading  # noqa: PLC0415 - see serve
    from markethall.shared.call import system_call  # noqa: PLC0415 - see serve

    async def fill(container: Any) -> loading.Loaded | None:
        call, imports = system_call("demo"), container.imports()
        market = catalogue.Market(products, await catalogue.known_skus(imports, call))
        if market.is_there:
            return None
        await catalogue.plant(container.categories(), call)
        with loading.Meter(err) as meter:
            work = container.inventory_context.importer().work
            return await loading.bring(market, imports, work, call, meter.show)

    loaded = _in_hall(fill)
    if loaded and not loaded.is_good:
        _report(loaded)
    out.print(f"{loaded.done.rows.created if loaded else 0} products added.")


@cli.command("import")
def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV (ours, or as Shopify exports it), or NDJSON", exists=True, dir_okay=False
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Look at every row, and change nothing")
    ] = False,
    currency: Annotated[str, typer.Option(help="Of prices that name none")] = "EUR",
) -> None:
    """Bring products from a file into the shop. A bad row stops no other."""
    from markethall import loading  # noqa: PLC0415 - see serve
    from markethall.shared.call import system_call  # noqa: PLC0415 - see serve

    load = loading.Load(file, _settings().import_limit, currency, dry_run=dry_run)

    async def bring(container: Any) -> loading.Loaded:
        importer = container.inventory_context.importer()
        with loading.Meter(err) as meter:
            return await loading.bring(
                load, container.imports(), importer.work, system_call("import"), meter.show
            )

    _report(_in_hall(bring))


def _report(loaded: "Loaded") -> None:
    for line in loaded.lines():
        out.print(line, markup=False)
    raise typer.Exit(0 if loaded.is_good else 1)


@events.command("dead")
def events_dead(context: Context = Context.ORDERS) -> None:
    """List the events whose handler has failed too often."""

    async def dead(container: Any) -> Any:
        return await _backend(container, context).inbox.dead()

    letters = _in_hall(dead)
    for letter in letters:
        received = letter.received_at.isoformat(timespec="seconds")
        out.print(f"{letter.event_id}  {letter.type}  to {letter.handler}, since {received}")
        out.print(f"    tried {letter.attempts} times: {letter.error}", markup=False)
    if not letters:
        out.print("No dead letters.")


@events.command("retry")
def events_retry(
    context: Context = Context.ORDERS,
    event_id: Annotated[UUID | None, typer.Option(help="Only this one; default: all")] = None,
) -> None:
    """Try dead letters again."""

    async def retry(container: Any) -> int:
        return int(await _backend(container, context).inbox.retry_dead(event_id))

    out.print(f"{_in_hall(retry)} events will be tried again.")


@events.command("replay")
def events_replay(event_id: UUID, context: Context = Context.ORDERS) -> None:
    """Run the handlers of one event once more, even if they were done."""

    async def replay(container: Any) -> int:
        return int(await _backend(container, context).inbox.replay(event_id))

    out.print(f"{_in_hall(replay)} handlers will run again.")


def _backend(container: Any, context: Context) -> Any:
    return getattr(container, f"{context.value}_context").backend()


def _settings() -> Settings:
    return read_settings()


def _refuse(line: str) -> NoReturn:
    raise BadSettings([line])


def _is_embedded_error(error: Exception) -> bool:
    """Asked only when something has gone wrong, so the extra is not imported at every start."""
    from markethall.embedded import EmbeddedError  # noqa: PLC0415 - see serve

    return isinstance(error, EmbeddedError)


def _say_what_is_wrong(lines: list[str]) -> None:
    for line in lines:
        err.print("error:", line, markup=False)


def _ask_password() -> str:
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


@contextmanager
def _database(settings: Settings, *, beside: bool = False) -> Iterator[Settings]:
    """The settings with a database in them: the embedded one, where none is named.

    `beside`: this command may run beside a server, and then uses the server's Postgres.
    """
    if settings.storage == "memory" or all(settings.database_of(c) for c in settings.serve):
        yield settings
        return
    from markethall.embedded import EmbeddedBusy, EmbeddedPostgres  # noqa: PLC0415 - an extra

    server = EmbeddedPostgres(settings.home)
    with _ending_on_sigterm():
        try:
            url = server.start()
        except EmbeddedBusy:
            if not beside:
                raise
            url = server.running_url()
        os.environ["MARKETHALL_DATABASE_URL"] = url
        try:
            yield read_settings()
        finally:
            server.stop()


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """So that the embedded server is stopped in order when we are told to go."""

    def leave(*_: object) -> NoReturn:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _is_embedded(settings: Settings) -> bool:
    return settings.storage == "sql" and not all(settings.database_of(c) for c in settings.serve)


def _migrate(settings: Settings, contexts: list[Context]) -> None:
    from markethall.migrating import upgrade_if_behind  # noqa: PLC0415 - see serve

    by_url: dict[str, list[Context]] = {}
    for context in contexts:
        by_url.setdefault(settings.database_of(context), []).append(context)
    for url, theirs in by_url.items():
        upgrade_if_behind(url, theirs)


def _prepare(settings: Settings) -> None:
    """In development the schema is brought up to date at start; in production by a job."""
    if settings.storage == "sql" and settings.environment == "development":
        _migrate(settings, sorted(settings.serve))


def _banner(settings: Settings, address: str, *, embedded: bool) -> None:
    """In plain words: where the data lies, where the API is, how to become staff."""
    if settings.environment == "production":
        return
    if settings.storage == "memory":
        data = "in memory: nothing is kept when this process ends"
        staff = "set MARKETHALL_ADMIN_EMAIL and MARKETHALL_ADMIN_PASSWORD, then start again"
        goods = "set them and POST /products, or run without --memory and `markethall demo`"
    else:
        data = f"an embedded Postgres in {settings.home}" if embedded else "your Postgres"
        staff = "markethall create-staff you@example.com --role admin"
        goods = "markethall demo"
    lines = {
        "API": address,
        "Docs": f"{address}/docs" if settings.shows_docs else "switched off",
        "Data": data,
        "Become staff": staff,
        "Fill the shop": goods,
    }
    err.print(f"[bold]Markethall {__version__}[/] serves {', '.join(sorted(settings.serve))}")
    elsewhere = [f"{place.context} at {place.at}" for place in places(settings) if not place.here]
    if elsewhere:
        lines["Elsewhere"] = ", ".join(elsewhere)
    for name, value in lines.items():
        err.print(f"  {name + ':':15}{value}", markup=False)


def _in_hall(work: Callable[[Any], Awaitable[T]]) -> T:
    """Run one piece of work on the services, as the server would wire them."""
    settings = _settings()
    if settings.storage == "memory":
        _refuse("MARKETHALL_STORAGE: this command needs a database; memory ends with its process")
    with _database(settings, beside=True) as settings:
        _prepare(settings)
        return asyncio.run(_with_container(settings, work))


async def _with_container(settings: Settings, work: Callable[[Any], Awaitable[T]]) -> T:
    from markethall.container import build_container  # noqa: PLC0415 - see serve
    from markethall.keys import read_keys  # noqa: PLC0415 - see serve
    from markethall.shared.errors import Refusal  # noqa: PLC0415 - see serve

    container = build_container(settings, read_keys(settings))
    try:
        return await work(container)
    except Refusal as refusal:
        err.print(f"[red]refused[/] {refusal.detail}")
        raise typer.Exit(1) from None
    finally:
        container.passwords().close()
        await container.cache().close()
        await container.pools().close()
        await container.redis().close()
