"""Each drift is planted once, and the contract suites see it: what cannot fail protects nothing."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rpc.mutants import MUTANTS

ROOT = Path(__file__).parents[2]
ALL = sorted({test for drift in MUTANTS.values() for test in drift.tests})


def run(server_url: str, *arguments: str) -> tuple[int, set[str], set[str]]:
    """The exit code, which tests have failed, and which have passed."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.rpc.mutants", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-q", "-rA", "--tb=no", "--show-capture=no", *arguments],
        cwd=ROOT,
        env={**os.environ, "MARKETHALL_TEST_DATABASE_URL": server_url},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = re.findall(r"^(PASSED|FAILED) (\S+)", done.stdout, re.MULTILINE)
    failed = {test for outcome, test in found if outcome == "FAILED"}
    return done.returncode, failed, {test for _, test in found} - failed


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_fails_only_its_own_test(server_url: str, name: str) -> None:
    drift = MUTANTS[name]

    code, failed, passed = run(server_url, "--mutant", name, *drift.tests)

    assert code == pytest.ExitCode.TESTS_FAILED
    expected = {test for test in failed | passed if any(part in test for part in drift.caught_by)}
    assert failed == expected != set()
    assert {test.partition("[")[0] for test in failed} == set(drift.tests)


def test_tests_pass_without_mutant(server_url: str) -> None:
    code, failed, passed = run(server_url, *ALL)

    assert (code, failed) == (0, set())
    assert {test.partition("[")[0] for test in passed} == set(ALL)
