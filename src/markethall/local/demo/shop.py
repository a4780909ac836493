"""A small hand-written catalogue with stock."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from markethall.inventory.catalogue.contract.products import Catalogue, NewProduct, Price, SkuTaken
from markethall.inventory.contract import ProductNotFound
from markethall.inventory.stock.contract import Adjustment, Stockroom
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.call_context import CallContext
from markethall.shared.kernel.scopes import CATALOGUE_WRITE, STOCK_WRITE

# Unix time in milliseconds, part of the ids (UUIDv7); constant, so that a product has the same id
# in all installations
_CREATED_AT_MS: Final = 1_795_219_200_000
# food and books have a lower tax rate than other goods
_REDUCED_TAX_CATEGORIES: Final = frozenset({"tea", "books"})


@dataclass(frozen=True)
class DemoFamily:
    """Products that differ only by their options, and the fields that they share."""

    name: str
    category: str
    description: str
    tags: tuple[str, ...]
    # sku, name, price in euro cents, units in stock, options
    products: tuple[tuple[str, str, int, int, Mapping[str, str]], ...]
    attributes: Mapping[str, str | int | bool]


SHOP: Final = (
    DemoFamily(
        name="sencha",
        category="tea",
        description="Green tea from Uji, steamed and rolled. Fresh, grassy, a little sweet. "
        "Two minutes at 70 °C.",
        tags=("green", "japan", "organic"),
        products=(
            ("TEA-SENCHA-050", "Sencha, 50 g", 690, 80, {"weight": "50 g"}),
            ("TEA-SENCHA-100", "Sencha, 100 g", 1250, 120, {"weight": "100 g"}),
            ("TEA-SENCHA-250", "Sencha, 250 g", 2800, 35, {"weight": "250 g"}),
        ),
        attributes={"origin": "Uji, Japan", "organic": True, "caffeine": "medium"},
    ),
    DemoFamily(
        name="earl-grey",
        category="tea",
        description="Black tea with oil of bergamot. Four minutes in boiling water; takes milk.",
        tags=("black", "flavoured"),
        products=(
            ("TEA-EARLGREY-100", "Earl Grey, 100 g", 890, 150, {"weight": "100 g"}),
            ("TEA-EARLGREY-250", "Earl Grey, 250 g", 1990, 60, {"weight": "250 g"}),
        ),
        attributes={"origin": "Dimbula, Sri Lanka", "organic": False, "caffeine": "high"},
    ),
    DemoFamily(
        name="rooibos",
        category="tea",
        description="Red bush from the Cederberg, without caffeine. It cannot steep too long.",
        tags=("herbal", "organic"),
        products=(("TEA-ROOIBOS-100", "Rooibos, 100 g", 650, 90, {"weight": "100 g"}),),
        attributes={"origin": "Cederberg, South Africa", "organic": True, "caffeine": "none"},
    ),
    DemoFamily(
        name="chai",
        category="tea",
        description="Assam with cardamom, ginger, cinnamon and cloves. Boil it up with milk.",
        tags=("black", "spiced"),
        products=(("TEA-CHAI-200", "Masala Chai, 200 g", 1390, 45, {"weight": "200 g"}),),
        attributes={"origin": "Assam, India", "organic": False, "caffeine": "high"},
    ),
    DemoFamily(
        name="jasmine",
        category="tea",
        description="Green tea that lay with fresh jasmine flowers for seven nights.",
        tags=("green", "flavoured", "china"),
        products=(("TEA-JASMINE-100", "Jasmine Pearls, 100 g", 1890, 7, {"weight": "100 g"}),),
        attributes={"origin": "Fujian, China", "organic": False, "caffeine": "medium"},
    ),
    DemoFamily(
        name="stone-cup",
        category="cups",
        description="A cup of stoneware, thrown by hand. No two are quite alike.",
        tags=("stoneware", "handmade"),
        products=(
            ("CUP-STONE-WHITE", "Stoneware Cup, white", 1800, 40, {"colour": "white"}),
            ("CUP-STONE-BLUE", "Stoneware Cup, blue", 1800, 25, {"colour": "blue"}),
            ("CUP-STONE-BLACK", "Stoneware Cup, black", 1800, 3, {"colour": "black"}),
        ),
        attributes={"volume_ml": 220, "dishwasher_safe": True},
    ),
    DemoFamily(
        name="glass-cup",
        category="cups",
        description="Two walls of glass with air between: hot tea, cool hands.",
        tags=("glass",),
        products=(
            ("CUP-GLASS-200", "Double-walled Glass, 200 ml", 1190, 64, {"volume": "200 ml"}),
            ("CUP-GLASS-350", "Double-walled Glass, 350 ml", 1490, 48, {"volume": "350 ml"}),
        ),
        attributes={"dishwasher_safe": True},
    ),
    DemoFamily(
        name="iron-pot",
        category="teapots",
        description="Cast iron, enamelled inside, with a steel strainer. Keeps tea hot for an "
        "hour.",
        tags=("iron", "japan"),
        products=(
            ("POT-IRON-060", "Iron Teapot, 0.6 l", 5900, 12, {"volume": "0.6 l"}),
            ("POT-IRON-100", "Iron Teapot, 1.0 l", 7900, 8, {"volume": "1.0 l"}),
        ),
        attributes={"origin": "Morioka, Japan", "dishwasher_safe": False},
    ),
    DemoFamily(
        name="porcelain-pot",
        category="teapots",
        description="A round white pot for four cups, with a spout that does not drip.",
        tags=("porcelain",),
        products=(("POT-PORCELAIN-120", "Porcelain Teapot, 1.2 l", 4200, 15, {}),),
        attributes={"dishwasher_safe": True},
    ),
    DemoFamily(
        name="tea-towel",
        category="linen",
        description="Pure linen, washed soft, with a loop to hang it by. 50 by 70 cm.",
        tags=("linen", "europe"),
        products=(
            ("LIN-TOWEL-NATURAL", "Tea Towel, natural", 1400, 70, {"colour": "natural"}),
            ("LIN-TOWEL-STRIPED", "Tea Towel, striped", 1500, 55, {"colour": "striped"}),
        ),
        attributes={"material": "linen", "wash_at": 60},
    ),
    DemoFamily(
        name="tablecloth",
        category="linen",
        description="Heavy linen with mitred corners. It gets better with every wash.",
        tags=("linen", "europe"),
        products=(
            ("LIN-CLOTH-150", "Tablecloth, 150x150 cm", 6500, 14, {"size": "150x150 cm"}),
            ("LIN-CLOTH-250", "Tablecloth, 150x250 cm", 8900, 9, {"size": "150x250 cm"}),
        ),
        attributes={"material": "linen", "wash_at": 60},
    ),
    DemoFamily(
        name="book-of-tea",
        category="books",
        description="Kakuzo Okakura's essay of 1906 on tea, art and the beauty of simple things.",
        tags=("classic",),
        products=(
            ("BOOK-TEA-PAPER", "The Book of Tea, paperback", 1100, 33, {"binding": "paperback"}),
            ("BOOK-TEA-CLOTH", "The Book of Tea, clothbound", 2400, 11, {"binding": "cloth"}),
        ),
        attributes={"author": "Kakuzo Okakura", "pages": 128},
    ),
    DemoFamily(
        name="tea-at-home",
        category="books",
        description="Water, leaves, time: forty teas and how to make them well in any kitchen.",
        tags=("how-to",),
        products=(("BOOK-HOME", "Tea at Home", 2900, 20, {"binding": "hardcover"}),),
        attributes={"pages": 208},
    ),
    DemoFamily(
        name="gift-box",
        category="gifts",
        description="Sencha, two blue cups and a striped towel in a box of beech wood.",
        tags=("gift",),
        products=(("GIFT-BOX-GREEN", "Gift Box, green tea", 7500, 6, {}),),
        attributes={"weight_g": 1400},
    ),
)


async def fill(catalogue: Catalogue, stockroom: Stockroom, ctx: CallContext) -> int:
    """Create the products and return the number of new ones. Existing ones are not changed."""
    writer = _with_write_scopes(ctx)
    new = 0
    for family in SHOP:
        for sku, name, cents, units, options in family.products:
            product = NewProduct(
                sku=sku,
                name=name,
                price=Price(amount=cents, currency="EUR"),
                description=family.description,
                category=family.category,
                tax_class="reduced" if family.category in _REDUCED_TAX_CATEGORIES else "standard",
                family=family.name,
                options=dict(options),
                tags=family.tags,
                attributes=dict(family.attributes),
            )
            new += await _add(catalogue, stockroom, writer, product, units)
    return new


async def _add(
    catalogue: Catalogue, stockroom: Stockroom, ctx: CallContext, product: NewProduct, units: int
) -> bool:
    """Create a product and its stock; return whether it is new.

    Every step is idempotent, so a retry completes an interrupted run.
    """
    product_id = fixed_id(product.sku)
    new = not await _exists(catalogue, ctx, product_id)
    try:
        await catalogue.create(ctx, product, IdempotentCommand.without_key(product_id))
    except SkuTaken:
        return False
    delivery = Adjustment(delta=units, reason="received", note="first delivery")
    await stockroom.adjust(
        ctx, product_id, delivery, IdempotentCommand.without_key(fixed_id(f"{product.sku} stock"))
    )
    return new


async def _exists(catalogue: Catalogue, call: CallContext, product_id: UUID) -> bool:
    try:
        await catalogue.get_product(call, product_id)
    except ProductNotFound:
        return False
    return True


def _with_write_scopes(call: CallContext) -> CallContext:
    scopes = call.actor.scopes | {CATALOGUE_WRITE, STOCK_WRITE}
    return call.model_copy(update={"actor": call.actor.model_copy(update={"scopes": scopes})})


def fixed_id(name: str) -> UUID:
    low = uuid5(NAMESPACE_URL, f"urn:markethall:demo:{name}").int & (1 << 80) - 1
    return UUID(int=_CREATED_AT_MS << 80 | low & ~(0xF << 76) | 0x7 << 76)
