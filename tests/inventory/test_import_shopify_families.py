"""Files in the layout of Shopify's sample catalogues become families, on each storage."""

import csv
import io
from pathlib import Path

import pytest

from markethall.inventory.catalogue.contract.families import FamilyDetail
from tests.inventory.conftest import STAFF, build_inventory_app
from tests.inventory.import_client import ImportClient, counts

FILES = Path(__file__).parent / "shopify_files"
WOOCOMMERCE = Path("docs/samples/woocommerce.csv").read_bytes()
PHOTOS = "https://photos.example/"

# lowest and highest price in cents, number of products, options, names of images
Expected = tuple[int, int, int, dict[str, tuple[str, ...]], list[str]]
APPAREL: dict[str, Expected] = {
    "linen-shirt": (5200, 5200, 1, {}, ["linen.jpg"]),
    "rowing-top": (
        6000,
        6250,
        3,
        {"Size": ("Small", "Medium", "Large")},
        ["rowing-1.jpg", "rowing-2.jpg", "rowing-3.jpg"],
    ),
    "rain-coat": (
        12000,
        12500,
        3,
        {"Size": ("S", "M"), "Color": ("Yellow", "Green")},
        ["coat.jpg"],
    ),
}
HOME: dict[str, Expected] = {
    "clay-pots": (795, 995, 2, {"Size": ("Regular", "Large")}, ["pots.jpg"]),
    "knitted-throw": (8500, 8500, 1, {}, ["throw%20one.jpg", "throw-2.jpg"]),
    "gift-voucher": (1000, 2500, 2, {"Denominations": ("10.00", "25.00")}, []),
}
JEWELLERY: dict[str, Expected] = {
    "moon-ring": (
        3000,
        13000,
        3,
        {
            "Ring size": ("52", "54"),
            "Metal": ("Silver", "Gold 14 ct"),
            "Engraving": ("None", "Initials"),
        },
        ["moon.jpg", "moon-gold.jpg"],
    ),
    "choker-with-bead": (6000, 6000, 1, {}, ["choker.jpg"]),
    "chain-bracelet": (4299, 4299, 2, {"Color": ("Blue", "Black")}, ["bracelet.jpg"]),
}


@pytest.fixture(params=["memory", "sql"])
def import_client(request: pytest.FixtureRequest) -> ImportClient:
    if request.param == "memory":
        return ImportClient(build_inventory_app("memory"))
    return ImportClient(build_inventory_app("sql", request.getfixturevalue("postgres")))


async def get_family(import_client: ImportClient, slug: str) -> FamilyDetail:
    return await import_client.inventory_app.container.families().get_family(STAFF, slug)


def _summary(family: FamilyDetail) -> Expected:
    assert family.price_range is not None
    return (
        family.price_range.lowest,
        family.price_range.highest,
        family.product_count,
        {option.name: option.values for option in family.options},
        [image.removeprefix(PHOTOS) for image in family.images],
    )


@pytest.mark.parametrize(
    ("name", "product_count", "family_count", "expected"),
    [
        ("apparel", 7, 3, APPAREL),
        ("home", 6, 4, HOME),
        ("jewellery", 6, 3, JEWELLERY),
    ],
)
async def test_catalogue_becomes_families(
    import_client: ImportClient,
    name: str,
    product_count: int,
    family_count: int,
    expected: dict[str, Expected],
) -> None:
    file = (FILES / f"{name}.csv").read_bytes()

    done = await import_client.import_to_end(file)
    again = await import_client.import_to_end(file)

    assert (done.rows.created, done.rows.failed) == (product_count, 0)
    assert done.rows.families_created == family_count
    export = io.StringIO((await import_client.export_families()).decode(), newline="")
    assert len(list(csv.DictReader(export))) == family_count
    assert {slug: _summary(await get_family(import_client, slug)) for slug in expected} == expected
    assert (counts(again)[1:], again.rows.families_updated) == ((0, 0, product_count, 0), 0)


async def test_family_has_texts_of_the_first_row(import_client: ImportClient) -> None:
    await import_client.import_to_end((FILES / "apparel.csv").read_bytes())

    top = await get_family(import_client, "rowing-top")
    coat = await get_family(import_client, "rain-coat")

    assert (top.name, top.description) == (
        "Rowing Top",
        "Brushed cotton with a letter, loose fit.",
    )
    assert (top.seo.title, top.seo.description) == (
        "Rowing top for women",
        "Loose rowing top of brushed cotton.",
    )
    assert (coat.category, coat.seo.title) == ("Coats", None)


async def test_family_keeps_what_the_file_does_not_have(import_client: ImportClient) -> None:
    await import_client.import_to_end((FILES / "apparel.csv").read_bytes())
    before = await get_family(import_client, "rowing-top")

    done = await import_client.import_to_end(
        "Handle,Title,Option1 Name,Option1 Value,Variant Price\nrowing-top,Boat Top,Size,Small,61\n"
    )

    after = await get_family(import_client, "rowing-top")
    assert (done.rows.updated, done.rows.families_updated) == (1, 1)
    assert (after.name, after.description, after.images, after.seo) == (
        "Boat Top",
        before.description,
        before.images,
        before.seo,
    )


async def test_woocommerce_family_has_texts_of_its_variable_product(
    import_client: ImportClient,
) -> None:
    await import_client.import_to_end(WOOCOMMERCE)

    hoodie = await get_family(import_client, "kapuzenpullover-kueste-501")

    assert (hoodie.name, hoodie.category) == ("Kapuzenpullover „Küste“", "Bekleidung > Pullover")
    assert [image.rpartition("/")[2] for image in hoodie.images] == [
        "kapuze-1.jpg",
        "kapuze-2.jpg",
    ]
    assert hoodie.seo.title == "Kapuzenpullover aus Bio-Baumwolle"
    assert {option.name: option.values for option in hoodie.options} == {
        "Größe": ("S", "M"),
        "Farbe": ("Nachtblau", "Sand"),
    }
