"""Runs a command of markethall that kills itself at a planned write.

Usage: python -m tests.e2e.crash_injector PLAN serve …

The module wraps five methods of asyncpg. A write is the COMMIT of a transaction with changes, or a
statement with changes outside of a transaction. The process reads the file PLAN at each write. The
file contains `SERIAL N before|after`: kill the process before or after the N-th write. Each new
plan has a new SERIAL, and the count of writes starts again. PLAN.trace lists the counted writes, so
that a test knows at which writes it can kill the process.
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
    """Counts the writes, and kills the process at the planned write."""

    def __init__(self, plan: Path) -> None:
        self._plan = plan
        self._serial = ""
        self._count = 0
        # maps each connection to the first table that its open transaction has changed
        self._wrote: WeakKeyDictionary[asyncpg.Connection, str] = WeakKeyDictionary()

    def on_statement(self, connection: asyncpg.Connection, sql: str, result: Any) -> None:
        """Record a completed statement."""
        found = _WRITE.search(sql)
        if not found or not _has_changed_rows(result):
            return
        if connection.is_in_transaction():
            self._wrote.setdefault(connection, found[1])
        else:
            self._count_write(found[1])
            # the statement is already committed, so "before" means the same as "after"
            self._kill_if_planned("before")
            self._kill_if_planned("after")

    def on_begin(self, connection: asyncpg.Connection) -> None:
        self._wrote.pop(connection, None)

    def on_commit(self, connection: asyncpg.Connection) -> bool:
        """Count the commit if the transaction has changes; return whether it has changes."""
        table = self._wrote.pop(connection, None)
        if table:
            self._count_write(f"{table} COMMIT")
            self._kill_if_planned("before")
        return bool(table)

    def after_commit(self) -> None:
        self._kill_if_planned("after")

    def _count_write(self, write: str) -> None:
        serial = (self._read() or ["", ""])[0]
        if serial != self._serial:
            self._serial, self._count = serial, 0
        self._count += 1
        with self._plan.with_suffix(".trace").open("a") as trace:
            trace.write(f"{serial} {self._count} {write}\n")

    def _kill_if_planned(self, moment: str) -> None:
        plan = self._read()
        if plan and plan[1:] == [str(self._count), moment]:
            os.kill(os.getpid(), signal.SIGKILL)

    def _read(self) -> list[str]:
        return self._plan.read_text().split()


def _has_changed_rows(result: Any) -> bool:
    """Return whether a statement has changed rows.

    `result` is a status such as `UPDATE 1`, the returned rows, one value, or EXECUTE_MANY.
    """
    if isinstance(result, str) and result.rpartition(" ")[2].isdigit():
        return not result.endswith(" 0")
    return result is EXECUTE_MANY or bool(result)


# stands for the result of `executemany`, which returns None but counts as a change
EXECUTE_MANY = object()


def wrap(plan: CrashPlan) -> None:
    for name in ("fetch", "fetchrow", "fetchval", "execute", "executemany"):
        original = getattr(asyncpg.Connection, name)
        setattr(asyncpg.Connection, name, _wrapped(plan, original, many=name == "executemany"))


def _wrapped(
    plan: CrashPlan, original: Callable[..., Awaitable[Any]], *, many: bool
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(original)
    async def wrapped(self: asyncpg.Connection, sql: str, *args: Any, **named: Any) -> Any:
        if sql in {"BEGIN", "ROLLBACK"}:
            plan.on_begin(self)
        has_written = sql == "COMMIT" and plan.on_commit(self)
        result = await original(self, sql, *args, **named)
        if has_written:
            plan.after_commit()
        plan.on_statement(self, sql, EXECUTE_MANY if many else result)
        return result

    return wrapped


if __name__ == "__main__":
    from markethall.cli import main

    wrap(CrashPlan(Path(sys.argv.pop(1))))
    main()
