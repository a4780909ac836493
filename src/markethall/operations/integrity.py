"""Runs the integrity checks of the served contexts, and the repairs of violated checks.

Every context has common checks (inbox, outbox, unique keys), and the checks of its container.
"""

import asyncio
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

import structlog

from markethall.container import ApplicationContainer
from markethall.contexts import context_names, topology
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.integrity import (
    DEFAULT_GRACE,
    CheckResult,
    CheckStatus,
    Findings,
    IntegrityCheck,
)
from markethall.shared.kernel.model import Dto
from markethall.shared.kernel.shared_run import SharedRun
from markethall.shared.messaging.integrity import MessagingChecks
from markethall.shared.persistence.unique_keys import UniqueKeysCheck

log = structlog.get_logger("markethall.integrity")

# A snapshot keeps Postgres from removing old row versions, so it must not stay open for hours.
MAX_CHECK_SECONDS: Final = 300.0


class IntegrityStatus(StrEnum):
    OK = "ok"
    VIOLATED = "violated"
    INCOMPLETE = "incomplete"


class IntegrityReport(Dto):
    """The results of all checks. `incomplete`: no violation was found, but not all rows were read.

    `contexts_not_served` are checked only by the processes that serve them.
    """

    status: IntegrityStatus
    checks: tuple[CheckResult, ...]
    contexts_not_served: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedRepair:
    """The repair of a check, and the result of the check before the repair."""

    context: str
    check: IntegrityCheck
    before: CheckResult

    @property
    def description(self) -> str:
        return self.check.repair.description if self.check.repair else ""


class IntegrityRunner:
    """Runs one check at a time, so that at most one database connection is used."""

    def __init__(
        self,
        container: ApplicationContainer,
        contexts: Collection[str] = (),
        *,
        grace: timedelta = DEFAULT_GRACE,
        max_check_seconds: float = MAX_CHECK_SECONDS,
        max_run_seconds: float = math.inf,
    ) -> None:
        """`contexts` limits the run to these contexts; if empty, all served ones are checked.

        A check that is not finished after `max_check_seconds` ends with the rows that it has found.
        The checks share `max_run_seconds`: each has an equal part of the time that is left, so that
        a long check does not use the time of those that follow.
        """
        self._container = container
        self._contexts = [name for name in container.contexts if not contexts or name in contexts]
        self._grace = grace
        self._max_check_seconds = max_check_seconds
        self._max_run_seconds = max_run_seconds
        self._ends_at = math.inf

    async def run(self) -> IntegrityReport:
        self._ends_at = _monotonic_seconds() + self._max_run_seconds
        checks = list(self._checks())
        results = [
            await self._run_check(context, check, unfinished_count=len(checks) - position)
            for position, (context, check) in enumerate(checks)
        ]
        not_served = set(context_names()) - set(self._container.contexts)
        return IntegrityReport(
            status=_summarize(results),
            checks=tuple(results),
            contexts_not_served=tuple(sorted(not_served)),
        )

    def plan_repairs(self, report: IntegrityReport) -> Sequence[PlannedRepair]:
        """Return a planned repair for each violated check that has a repair."""
        violated = {
            (result.context, result.check): result
            for result in report.checks
            if result.status is CheckStatus.VIOLATED
        }
        return [
            PlannedRepair(context, check, violated[context, check.check_id])
            for context, check in self._checks()
            if check.repair and (context, check.check_id) in violated
        ]

    async def repair(self, planned: PlannedRepair) -> CheckResult:
        """Run the repair, then the check again. `reason` says why a repair has failed."""
        failure = await self._try_repair(planned)
        result = await self._run_check(planned.context, planned.check)
        return result.model_copy(update={"reason": failure}) if failure else result

    async def _try_repair(self, planned: PlannedRepair) -> str | None:
        names = {"context": planned.context, "check": planned.check.check_id}
        try:
            if planned.check.repair:
                await planned.check.repair.run()
        except Exception as error:  # a repair that fails must not prevent the others
            log.exception("integrity.repair_failed", **names)
            return f"the repair failed: {error!r}"
        log.info("integrity.repaired", **names)
        return None

    def _checks(self) -> Iterator[tuple[str, IntegrityCheck]]:
        for context in self._contexts:
            for check in list_checks(self._container, context):
                yield context, check

    async def _run_check(
        self, context: str, check: IntegrityCheck, *, unfinished_count: int = 1
    ) -> CheckResult:
        findings = Findings()
        seconds_left = self._ends_at - _monotonic_seconds()
        max_seconds = min(self._max_check_seconds, seconds_left / unfinished_count)
        reason = await self._find(check, findings, max_seconds)
        if findings.violations:
            status = CheckStatus.VIOLATED
        else:
            status = CheckStatus.NOT_CHECKED if reason else CheckStatus.OK
        return CheckResult(
            context=context,
            check=check.check_id,
            rule=check.rule,
            status=status,
            checked=findings.checked,
            violations=findings.violations,
            rows=tuple(findings.rows),
            reason=reason,
        )

    async def _find(self, check: IntegrityCheck, findings: Findings, seconds: float) -> str | None:
        """Run the check. Return why it did not finish, or None."""
        if seconds <= 0:
            return "no time left"
        try:
            async with asyncio.timeout(seconds):
                await check.find(findings, self._grace)
        except TimeoutError:
            return f"not finished within {seconds:.1f} s"
        except Unavailable as error:
            return f"{error.details.get('dependency', 'a dependency')} is not available"
        except Exception as error:  # a check that fails must not hide the results of the others
            log.exception("integrity.check_failed", check=check.check_id)
            return f"failed: {error!r}"
        return None


def list_checks(container: ApplicationContainer, context: str) -> Sequence[IntegrityCheck]:
    """Return the common checks, and the checks of the context's container, sorted by id."""
    context_container = container.contexts[context]
    persistence = context_container.persistence()
    messaging = MessagingChecks(persistence.inbox, persistence.outbox, context_container.clock())
    checks = [*context_container.integrity_checks(), *messaging.list_checks()]
    postgres = context_container.tools().postgres
    if postgres is not None:
        metadata = topology().contexts[context].load_metadata()
        checks += UniqueKeysCheck(postgres, metadata).list_checks()
    return sorted(checks, key=lambda check: check.check_id)


def _monotonic_seconds() -> float:
    return asyncio.get_running_loop().time()


def _summarize(results: Sequence[CheckResult]) -> IntegrityStatus:
    if any(result.status is CheckStatus.VIOLATED for result in results):
        return IntegrityStatus.VIOLATED
    if any(result.reason for result in results):
        return IntegrityStatus.INCOMPLETE
    return IntegrityStatus.OK


_REUSE_SECONDS: Final = 5.0


class SharedIntegrityReport:
    """Runs the checks at most once at a time, and reuses the report for a few seconds."""

    def __init__(self, max_run_seconds: float) -> None:
        self._max_run_seconds = max_run_seconds
        self._container: ApplicationContainer | None = None
        self._shared_run = SharedRun[IntegrityReport](_REUSE_SECONDS)

    async def get(self, container: ApplicationContainer) -> IntegrityReport:
        """Return a report of this container that is at most a few seconds old."""
        if self._container is not container:
            self._container = container
            self._shared_run = SharedRun[IntegrityReport](_REUSE_SECONDS)
        runner = IntegrityRunner(container, max_run_seconds=self._max_run_seconds)
        return await self._shared_run.get(runner.run)
