"""Finds the Alembic files of the built-in contexts, in the repository or in the wheel."""

from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).parents[2]


def alembic_ini_path() -> Path:
    candidates = (_PACKAGE.parents[1] / "alembic.ini", _PACKAGE / "alembic.ini")
    return next(path for path in candidates if path.exists())


def built_in_migrations(context: str) -> Path:
    """Return the directory with the revisions of a built-in context."""
    return alembic_ini_path().parent / "migrations" / context
