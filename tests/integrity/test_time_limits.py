"""Test the time limits of integrity checks."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from dependency_injector import providers

from markethall.container import ApplicationContainer
from markethall.operations.integrity import IntegrityRunner
from markethall.secret_keys import load_or_create_secrets
from markethall.settings import read_settings
from markethall.shared.kernel.integrity import Findings, IntegrityCheck, OffendingRow


@pytest.fixture
async def container(tmp_path: Path) -> AsyncIterator[ApplicationContainer]:
    settings = read_settings(storage="memory", data_dir=tmp_path)
    container = ApplicationContainer(settings, load_or_create_secrets(settings))
    yield container
    await container.close()


async def never_finish(findings: Findings, _: timedelta) -> None:
    await asyncio.Event().wait()


async def find_a_row_and_never_finish(findings: Findings, grace: timedelta) -> None:
    findings.add(OffendingRow(row="row id=1", problem="is wrong"))
    await never_finish(findings, grace)


async def test_check_that_does_not_finish_leaves_time_for_the_others(
    container: ApplicationContainer,
) -> None:
    endless = [IntegrityCheck(f"A.{number}", "rule", never_finish) for number in range(3)]
    container.contexts["users"].integrity_checks.override(providers.Object(endless))

    report = await IntegrityRunner(container, ["users"], max_run_seconds=0.5).run()

    statuses = {result.check: result.status for result in report.checks}
    assert [statuses.pop(check.check_id) for check in endless] == ["not_checked"] * 3
    assert set(statuses.values()) == {"ok"}
    assert report.status == "incomplete"


async def test_check_that_does_not_finish_reports_what_it_has_found(
    container: ApplicationContainer,
) -> None:
    check = IntegrityCheck("A.1", "rule", find_a_row_and_never_finish)
    container.contexts["users"].integrity_checks.override(providers.Object([check]))

    report = await IntegrityRunner(container, ["users"], max_check_seconds=0.2).run()

    result = report.checks[0]
    assert (result.status, result.violations) == ("violated", 1)
    assert result.reason == "not finished within 0.2 s"
