"""Each attack finds a broken implementation, so it would also find such a defect in the app."""

from pathlib import Path
from typing import Final

import pytest

from tests.acidrain.cart_attack import attack_cart
from tests.acidrain.order_attacks import attack_inventory, attack_voucher
from tests.acidrain.target import Attack, open_target
from tests.conftest import on_server
from tests.e2e.dedicated_server import dedicated_database

SERVER: Final = "tests.acidrain.broken.server"
RACERS: Final = 10
MAX_ROUNDS: Final = 20
# the delay of each direction in seconds; it also makes the time from the check to the write longer
DELAY: Final = 0.01


@pytest.mark.parametrize(
    ("attack", "implementation", "violation"),
    [
        (attack_voucher, "lost_update_of_voucher", "voucher uses, more than"),
        (attack_inventory, "check_then_reserve", "units sold, more than"),
        (attack_cart, "close_cart_later", "orders of one cart"),
        (attack_cart, "charge_then_read_lines", "a charge of"),
    ],
)
async def test_attack_finds_broken_implementation(
    server_url: str,
    template: str,
    tmp_path: Path,
    attack: Attack,
    implementation: str,
    violation: str,
) -> None:
    async with dedicated_database(server_url, template) as url:
        # drop the constraint, which would reject what the broken store does not check
        await on_server(url, "ALTER TABLE inventory.stock DROP CONSTRAINT ck_stock_reserved")
        async with open_target(url, tmp_path, DELAY, implementation, program=SERVER) as target:
            found: list[str] = []
            for _ in range(MAX_ROUNDS):
                found += await attack(target, RACERS)
                if any(violation in text for text in found):
                    break

    assert any(violation in text for text in found), found
