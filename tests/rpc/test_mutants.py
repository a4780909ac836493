"""Test that exactly the expected contract tests fail with each mutant."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rpc.mutants import MUTANTS

ROOT = Path(__file__).parents[2]
ALL = sorted({test for mutant in MUTANTS.values() for test in mutant.tests})


def run_pytest(server_url: str, *arguments: str) -> tuple[int, set[str], set[str]]:
    """Run pytest. Return the exit code, the ids of failed tests, and the ids of passed tests."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.rpc.mutants", "-p", "no:cacheprovider"]
    completed = subprocess.run(
        [*command, "-q", "-rA", "--tb=no", "--show-capture=no", *arguments],
        cwd=ROOT,
        env={**os.environ, "MARKETHALL_TEST_DATABASE_URL": server_url},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    outcomes = re.findall(r"^(PASSED|FAILED) (\S+)", completed.stdout, re.MULTILINE)
    failed = {test for outcome, test in outcomes if outcome == "FAILED"}
    return completed.returncode, failed, {test for _, test in outcomes} - failed


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_fails_only_its_own_test(server_url: str, name: str) -> None:
    mutant = MUTANTS[name]

    code, failed, passed = run_pytest(server_url, "--mutant", name, *mutant.tests)

    assert code == pytest.ExitCode.TESTS_FAILED
    expected = {test for test in failed | passed if any(part in test for part in mutant.caught_by)}
    assert failed == expected != set()
    assert {test.partition("[")[0] for test in failed} == set(mutant.tests)


def test_tests_pass_without_mutant(server_url: str) -> None:
    code, failed, passed = run_pytest(server_url, *ALL)

    assert (code, failed) == (0, set())
    assert {test.partition("[")[0] for test in passed} == set(ALL)
