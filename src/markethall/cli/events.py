"""Commands for dead letters and replays."""

from typing import Annotated, Any
from uuid import UUID

import typer

from markethall.cli.console import out
from markethall.cli.runtime import run_with_container

events = typer.Typer(no_args_is_help=True, help="Dead letters and replays.")


@events.command("dead")
def events_dead(context: str = "orders") -> None:
    """List the events whose handler has failed too often."""

    async def list_dead_letters(container: Any) -> Any:
        return await _backend(container, context).inbox.get_dead_letters()

    dead_letters = run_with_container(list_dead_letters)
    for dead_letter in dead_letters:
        received = dead_letter.received_at.isoformat(timespec="seconds")
        out.print(
            f"{dead_letter.event_id}  {dead_letter.type}"
            f"  to {dead_letter.handler}, since {received}"
        )
        out.print(f"    tried {dead_letter.attempts} times: {dead_letter.error}", markup=False)
    if not dead_letters:
        out.print("No dead letters.")


@events.command("retry")
def events_retry(
    context: str = "orders",
    event_id: Annotated[UUID | None, typer.Option(help="Only this one; default: all")] = None,
) -> None:
    """Try dead letters again."""

    async def retry(container: Any) -> int:
        return int(await _backend(container, context).inbox.requeue_dead_letters(event_id))

    out.print(f"{run_with_container(retry)} events will be tried again.")


@events.command("replay")
def events_replay(event_id: UUID, context: str = "orders") -> None:
    """Run the handlers of one event once more, even if they were done."""

    async def replay(container: Any) -> int:
        return int(await _backend(container, context).inbox.replay(event_id))

    out.print(f"{run_with_container(replay)} handlers will run again.")


def _backend(container: Any, context: str) -> Any:
    return getattr(container, f"{context}_context").persistence()
