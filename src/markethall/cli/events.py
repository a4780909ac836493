from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from markethall.cli.console import out
from markethall.cli.runtime import run_with_container
from markethall.shared.composition.settings import SettingsError

if TYPE_CHECKING:
    from markethall.container import ApplicationContainer
    from markethall.shared.messaging.inbox import DeadLetter, Inbox

events = typer.Typer(no_args_is_help=True, help="Dead letters and replays.")


@events.command("dead")
def events_dead(context: str = "orders") -> None:
    """List the events whose handler has failed too often."""

    async def list_dead_letters(container: "ApplicationContainer") -> "Sequence[DeadLetter]":
        return await _inbox(container, context).get_dead_letters()

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

    async def retry(container: "ApplicationContainer") -> int:
        return int(await _inbox(container, context).requeue_dead_letters(event_id))

    out.print(f"{run_with_container(retry)} events will be tried again.")


@events.command("replay")
def events_replay(event_id: UUID, context: str = "orders") -> None:
    """Run the handlers of one event once more, even if they have succeeded before."""

    async def replay(container: "ApplicationContainer") -> int:
        return int(await _inbox(container, context).replay(event_id))

    out.print(f"{run_with_container(replay)} handlers will run again.")


def _inbox(container: "ApplicationContainer", context: str) -> "Inbox":
    if context not in container.contexts:
        raise SettingsError([f"MARKETHALL_CONTEXTS: this needs {context}, which is not served"])
    return container.contexts[context].persistence().inbox
