"""Test the example storefront in a real Chromium, with one process per context behind a proxy."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from tests.browser.storefront_process import running_storefront
from tests.browser.storefront_tab import (
    Storefront,
    Tab,
    filled_storefront,
    new_account,
    opened_tab,
)
from tests.e2e.servers import free_port
from tests.local_cluster.cluster_process import ready_cluster


@pytest.fixture(scope="module")
def cluster_shop(scratch: Path) -> Iterator[Storefront]:
    folder = scratch / "storefront-cluster"
    folder.mkdir()
    port = free_port()
    origin = f"http://127.0.0.1:{port}"
    with (
        ready_cluster(folder, cors_origins=origin) as cluster,
        running_storefront(folder, port, cluster.url) as output,
    ):
        yield filled_storefront(origin, cluster.url, output, lambda: "\n".join(cluster.log_lines))


@pytest.fixture
async def cluster_tab(chromium: Browser, cluster_shop: Storefront) -> AsyncIterator[Tab]:
    async with opened_tab(chromium, cluster_shop) as found:
        yield found


async def test_guest_buys_and_follows_the_order(cluster_tab: Tab) -> None:
    tab = cluster_tab
    path = await tab.order_paid_shirt()
    parcel = {"carrier": "DHL", "tracking_number": "JD0123"}

    shipment = tab.shop.staff.post(f"{path}/fulfilments", parcel)
    await expect(tab.page.locator("#shipments")).to_contain_text("DHL: JD0123")
    tab.shop.staff.post(f"/fulfilments/{shipment['fulfilment_id']}/deliver", {}, 200)

    await expect(tab.page.locator("#status")).to_have_text("Your order has been delivered.")
    assert tab.origins == {tab.shop.origin, tab.shop.api}
    assert tab.opened.errors == []


async def test_guest_signs_in_and_keeps_cart_and_orders(cluster_tab: Tab) -> None:
    tab, name = cluster_tab, new_account(cluster_tab.shop)
    await tab.order_shirt()
    await tab.put_shirt_into_cart("L")

    await tab.sign_in(name)

    await expect(tab.page.get_by_label("Your order")).to_contain_text("Linen Shirt, white, L")
    # an event changes the owner of the order soon after the response
    while await tab.count_orders() == 0:
        await tab.page.reload()
    assert await tab.count_orders() == 1
    assert tab.opened.errors == []
