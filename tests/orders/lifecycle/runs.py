"""Run a random test of orders on an app."""

import asyncio
from collections.abc import Callable
from typing import Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

STEPS: Final = 40
_SEARCH_ONLY: Final = (Phase.explicit, Phase.generate)


def run_lives(
    machine: type[RuleBasedStateMachine],
    build_app: Callable[[], object],
    loop: asyncio.AbstractEventLoop,
    examples: int,
    *,
    is_random: bool = False,
    shrinks: bool = True,
) -> None:
    """Run random lives of orders. They are the same in each run unless `is_random`."""
    configuration = {"build_app": staticmethod(build_app), "loop": loop}
    run_state_machine_as_test(
        type(machine.__name__, (machine,), configuration),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=not is_random,
            suppress_health_check=list(HealthCheck),
            phases=tuple(Phase) if shrinks else _SEARCH_ONLY,
        ),
    )
