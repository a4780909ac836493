"""Run the integrity checks of a context, and break its rows with direct SQL."""

from collections.abc import Iterable
from datetime import timedelta

import asyncpg

from markethall.shared.kernel.integrity import Findings, IntegrityCheck, OffendingRow
from tests.conftest import plain


async def find_violations(
    checks: Iterable[IntegrityCheck], grace: timedelta = timedelta()
) -> dict[str, list[OffendingRow]]:
    """Run the checks. Return the offending rows of each violated check by its id."""
    violations = {}
    for check in checks:
        findings = Findings()
        await check.find(findings, grace)
        if findings.rows:
            violations[check.check_id] = findings.rows
    return violations


async def tamper(database_url: str, *statements: str) -> None:
    """Execute SQL without triggers and foreign keys.

    Raises AssertionError if a statement changes no row.
    """
    connection = await asyncpg.connect(plain(database_url))
    try:
        await connection.execute("SET session_replication_role = replica")
        for statement in statements:
            status = await connection.execute(statement)
            assert not status.endswith(" 0"), f"nothing was changed by: {statement}"
    finally:
        await connection.close()
