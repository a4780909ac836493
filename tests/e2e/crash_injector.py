"""`markethall serve`, but it kills itself at the n-th write: python -m tests.e2e.crash_injector PLAN serve …

Nothing of Markethall is touched: the driver's five methods are wrapped. What counts is what the
database keeps: a COMMIT of a transaction that wrote, and a writing statement outside of one. The
plan is a file, read at each such moment: `serial n before|after`; a new serial starts to count
anew. What was counted is noted beside it (PLAN.trace), so that a sweep knows how far it has to go.
"""

import functools
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import asyncpg

_WRITE = re.compile(r"(?<!FOR )(?<!KEY )(?<!DO )\b(?:INSERT INTO|UPDATE|DELETE FROM)\s+([\w.\"]+)")


class CrashPlan:
    """Counts the writes, and ends the process when its time has come."""

    def __init__(self, plan: Path) -> None:
        self._plan = plan
        self._serial = ""
        self._count = 0
        # a connection inside a transaction -> the first thing it wrote there
        self._wrote: WeakKeyDictionary[asyncpg.Connection, str] = WeakKeyDictionary()

    def on_statement(self, connection: asyncpg.Connection, sql: str, result: Any) -> None:
        """A statement has been done."""
        found = _WRITE.search(sql)
        if not found or not _touched_anything(result):
            return
        if connection.is_in_transaction():
            self._wrote.setdefault(connection, found[1])
        else:
            self._count_write(found[1])
            # it is kept already: there is no before
            self._kill_if_planned("before")
            self._kill_if_planned("after")

    def on_begin(self, connection: asyncpg.Connection) -> None:
        self._wrote.pop(connection, None)

    def on_commit(self, connection: asyncpg.Connection) -> bool:
        """Whether anything will be kept."""
        table = self._wrote.pop(connection, None)
        if table:
            self._count_write(f"{table} COMMIT")
            self._kill_if_planned("before")
        return bool(table)

    def after_commit(self) -> None:
        self._kill_if_planned("after")

    def _count_write(self, what: str) -> None:
        serial = (self._read() or ["", ""])[0]
        if serial != self._serial:
            self._serial, self._count = serial, 0
        self._count += 1
        with self._plan.with_suffix(".trace").open("a") as trace:
            trace.write(f"{serial} {self._count} {what}\n")

    def _kill_if_planned(self, moment: str) -> None:
        plan = self._read()
        if plan and plan[1:] == [str(self._count), moment]:
            os.kill(os.getpid(), signal.SIGKILL)

    def _read(self) -> list[str]:
        return self._plan.read_text().split()


def _touched_anything(result: Any) -> bool:
    """What asyncpg gives back: a status line, a row, rows, a value; nothing from executemany."""
    if isinstance(result, str) and result.rpartition(" ")[2].isdigit():
        return not result.endswith(" 0")
    return result is MANY or bool(result)


MANY = object()


def wrap(fate: CrashPlan) -> None:
    for name in ("fetch", "fetchrow", "fetchval", "execute", "executemany"):
        original = getattr(asyncpg.Connection, name)
        setattr(asyncpg.Connection, name, _watched(fate, original, many=name == "executemany"))


def _watched(
    fate: CrashPlan, original: Callable[..., Awaitable[Any]], *, many: bool
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def watched(self: asyncpg.Connection, sql: str, *args: Any, **named: Any) -> Any:
        if sql in {"BEGIN", "ROLLBACK"}:
            fate.on_begin(self)
        keeps = sql == "COMMIT" and fate.on_commit(self)
        result = await original(self, sql, *args, **named)
        if keeps:
            fate.after_commit()
        fate.on_statement(self, sql, MANY if many else result)
        return result

    return watched


if __name__ == "__main__":
    from markethall.cli import main

    wrap(CrashPlan(Path(sys.argv.pop(1))))
    main()
