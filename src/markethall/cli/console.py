"""Console output: results on standard output, everything else on standard error."""

from typing import NoReturn

from rich.console import Console

from markethall.shared.composition.settings import SettingsError

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_note(line: str) -> None:
    """Print to standard error, because a script may capture standard output."""
    err.print(line, markup=False)


def fail(line: str) -> NoReturn:
    """Raise SettingsError with this line; `main` prints it and exits with code 2."""
    raise SettingsError([line])


def print_errors(lines: list[str]) -> None:
    for line in lines:
        err.print("error:", line, markup=False)
