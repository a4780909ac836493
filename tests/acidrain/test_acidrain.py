"""Attacks with requests that arrive together, over real sockets, as in the ACIDRain study.

`make test-acidrain` runs all rounds, with a round trip to the database of 0 and of 200 ms.
"""

import os
from collections.abc import AsyncIterator
from typing import Final

import pytest

from tests.acidrain.cart_attack import attack_cart
from tests.acidrain.order_attacks import attack_inventory, attack_voucher
from tests.acidrain.target import Attack, Target, open_target
from tests.e2e.dedicated_server import dedicated_database

FULL: Final = os.environ.get("MARKETHALL_TEST_SCOPE") == "full"
RACERS: Final = 20 if FULL else 10
ROUNDS: Final = 5 if FULL else 1
# maps the round trip to the database in milliseconds to the delay of one direction in seconds
DELAYS: Final = {0: 0.0, 200: 0.1} if FULL else {0: 0.0}


@pytest.fixture(scope="module", params=DELAYS, ids=lambda milliseconds: f"{milliseconds}ms")
async def target(
    request: pytest.FixtureRequest,
    server_url: str,
    template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Target]:
    folder = tmp_path_factory.mktemp("acidrain")
    async with (
        dedicated_database(server_url, template) as url,
        open_target(url, folder, DELAYS[request.param]) as target,
    ):
        yield target


@pytest.mark.parametrize("attack", [attack_voucher, attack_inventory, attack_cart])
async def test_attack_finds_no_violation(target: Target, attack: Attack) -> None:
    violations = [await attack(target, RACERS) for _ in range(ROUNDS)]

    assert violations == [[]] * ROUNDS
