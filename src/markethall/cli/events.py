"""Dead letters and replays."""

from typing import Annotated, Any
from uuid import UUID

import typer

from markethall.cli.console import out
from markethall.cli.hall import in_hall
from markethall.topology import Context

events = typer.Typer(no_args_is_help=True, help="Dead letters and replays.")


@events.command("dead")
def events_dead(context: Context = Context.ORDERS) -> None:
    """List the events whose handler has failed too often."""

    async def dead(container: Any) -> Any:
        return await _backend(container, context).inbox.dead()

    letters = in_hall(dead)
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

    out.print(f"{in_hall(retry)} events will be tried again.")


@events.command("replay")
def events_replay(event_id: UUID, context: Context = Context.ORDERS) -> None:
    """Run the handlers of one event once more, even if they were done."""

    async def replay(container: Any) -> int:
        return int(await _backend(container, context).inbox.replay(event_id))

    out.print(f"{in_hall(replay)} handlers will run again.")


def _backend(container: Any, context: Context) -> Any:
    return getattr(container, f"{context.value}_context").backend()
