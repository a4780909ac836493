"""One story, the same every time: what a hall is for, and the crossed refusals of its contexts.

Requests come one after the other, and after each that sets events in motion all comes to rest; so
what happens next depends on nothing but the story.
"""

from tests.partitions.player import Player
from tests.partitions.story.money import money_goes_back, nobody_pays, the_provider_is_slow_to_say
from tests.partitions.story.orders import (
    cancelled,
    declined,
    from_order_to_delivery,
    keys,
    refused,
    strangers,
)
from tests.partitions.story.people import banned, people, staff
from tests.partitions.story.shelves import shelves


async def play(player: Player) -> None:
    await player.sign_in_admin()
    await people(player)
    goods = await shelves(player)
    await from_order_to_delivery(player, goods)
    await declined(player, goods)
    await cancelled(player, goods)
    await refused(player, goods)
    await keys(player, goods)
    await strangers(player, goods)
    await staff(player, goods)
    await nobody_pays(player, goods)
    await the_provider_is_slow_to_say(player, goods)
    await money_goes_back(player, goods)
    await banned(player, goods)
    await the_end(player, goods)


async def the_end(p: Player, goods: dict[str, str]) -> None:
    await p.rest()
    for who in ("anna", "ben", "carl", "admin"):
        await p.get("/orders?limit=100", who)
        await p.get("/payments?limit=100&sort=created_at", who)
    for path in ("/transactions?limit=100", "/ledger/accounts", "/ledger/verify"):
        await p.get(path, "admin")
    for product in goods.values():
        await p.get(f"/products/{product}/stock", "admin")
        await p.get(f"/products/{product}", "admin")
    for method, path in (("DELETE", "/orders"), ("PUT", "/payments"), ("PATCH", "/products")):
        await p.ask(method, path, "admin")
    await p.ask("GET", "/nowhere")
    await p.ask("POST", "/orders", "anna", headers={"idempotency-key": "x"}, content=b"<order/>")
    await p.stats("admin")
