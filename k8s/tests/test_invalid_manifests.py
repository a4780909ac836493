"""scripts/check_manifests finds every mistake in invalid_manifests.yaml.

Every check must find at least one of the mistakes, which shows that the check works.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s.tests.rendered import changed
from scripts.check_manifests import CHECKS, findings
from scripts.check_manifests.manifests import Manifests

MISTAKES = yaml.safe_load(Path(__file__).with_name("invalid_manifests.yaml").read_text())


def documents_of(mistake: dict[str, Any]) -> list[dict[str, Any]]:
    return changed(mistake.get("overlay", "monolith"), mistake["changes"])


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake["finding"] for mistake in MISTAKES])
def test_a_mistake_is_found(mistake: dict[str, Any]) -> None:
    found = findings(documents_of(mistake))

    assert any(mistake["finding"] in finding for finding in found), found


def test_every_check_finds_a_mistake() -> None:
    # leave out the mistakes that the JSON schemas find, because CHECKS do not find them: the first
    # mistake and those with " schema: "
    without_schemas = [m for m in MISTAKES if " schema: " not in m["finding"]][1:]
    idle = set(CHECKS)

    for mistake in without_schemas:
        manifests = Manifests(documents_of(mistake))
        idle -= {check for check in idle if any(check(manifests))}

    assert idle == set()
