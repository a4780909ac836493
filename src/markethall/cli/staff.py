import sys
from typing import TYPE_CHECKING, Annotated

import typer

from markethall.cli.console import out
from markethall.cli.runtime import run_with_container
from markethall.shared.composition.settings import strip_newline

if TYPE_CHECKING:
    from markethall.container import ApplicationContainer

cli = typer.Typer()


@cli.command()
def create_staff(
    email: str,
    role: Annotated[str, typer.Option(help="admin, staff, staff:catalogue, …")] = "staff",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input")
    ] = False,
) -> None:
    """Create an account with a staff role."""
    password = (
        strip_newline(sys.stdin.readline())
        if password_stdin
        else str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
    )

    async def create(container: "ApplicationContainer") -> str:
        from markethall.users.container import UsersContainer

        accounts = container.context("users", UsersContainer).accounts()
        user = await accounts.create_staff(email, role, password)
        return f"{user.username} ({email}) is {role} now."

    out.print(run_with_container(create))
