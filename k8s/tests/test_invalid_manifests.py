"""The check sees every kind of mistake that it promises to see."""

import pytest
from k8s.mistakes import MISTAKES
from k8s.mistakes.kind import Mistake
from k8s.rendered import Manifests

from scripts.check_manifests import CHECKS, findings
from scripts.check_manifests.hall import Hall
from scripts.check_manifests.objects import check_schemas


def names(mistake: Mistake) -> str:
    return f"{mistake.overlay}: {mistake.name}"


@pytest.mark.parametrize("mistake", MISTAKES, ids=names)
def test_a_planted_mistake_is_found(mistake: Mistake) -> None:
    manifests = Manifests(mistake.overlay)

    mistake.plant(manifests)

    found = findings(manifests.documents)
    assert any(mistake.expected in finding for finding in found), found


def test_every_check_has_a_planted_mistake() -> None:
    idle = set(CHECKS)
    for mistake in MISTAKES:
        manifests = Manifests(mistake.overlay)
        mistake.plant(manifests)
        hall = Hall(manifests.documents)
        # the checks take the shape for granted
        if not any(check_schemas(hall)):
            idle -= {check for check in idle if any(check(hall))}

    assert not idle
