"""Words, option values and templates of the generated catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True)
class OptionValues:
    """An option and its values: each in English, German and French, with a code for the SKU."""

    name: str
    values: tuple[tuple[str, str, str, str], ...]
    max_values: int


@dataclass(frozen=True)
class CategoryTemplate:
    """A category with its parent and its names in German and French."""

    name: str
    parent: str | None
    german: str
    french: str


@dataclass(frozen=True)
class ProductTemplate:
    """A kind of product. Prices are in euro cents, weights in grams."""

    code: str
    noun: str
    german: str
    french: str
    category: str
    prices: tuple[int, int]
    weights: tuple[int, int]
    options: tuple[OptionValues, ...]
    materials: tuple[str, ...]
    uses: tuple[str, ...]


COLOUR: Final = OptionValues(
    "colour",
    (
        ("black", "schwarz", "noir", "BLK"),
        ("white", "weiß", "blanc", "WHT"),
        ("navy", "marineblau", "bleu marine", "NVY"),
        ("olive", "oliv", "olive", "OLV"),
        ("sand", "sand", "sable", "SND"),
        ("rust", "rost", "rouille", "RST"),
        ("grey", "grau", "gris", "GRY"),
        ("mustard", "senf", "moutarde", "MUS"),
    ),
    4,
)
CLOTHES_SIZE: Final = OptionValues(
    "size",
    (
        ("XS", "XS", "XS", "XS"),
        ("S", "S", "S", "S"),
        ("M", "M", "M", "M"),
        ("L", "L", "L", "L"),
        ("XL", "XL", "XL", "XL"),
    ),
    5,
)
SHOE_SIZE: Final = OptionValues(
    "size", tuple((str(n), str(n), str(n), str(n)) for n in range(37, 46)), 6
)
VOLUME: Final = OptionValues(
    "volume",
    (
        ("250 ml", "250 ml", "250 ml", "025"),
        ("500 ml", "500 ml", "500 ml", "050"),
        ("750 ml", "750 ml", "750 ml", "075"),
        ("1 l", "1 l", "1 l", "100"),
    ),
    3,
)
PACK: Final = OptionValues(
    "weight",
    (
        ("100 g", "100 g", "100 g", "100"),
        ("250 g", "250 g", "250 g", "250"),
        ("500 g", "500 g", "500 g", "500"),
        ("1 kg", "1 kg", "1 kg", "1KG"),
    ),
    3,
)
RULING: Final = OptionValues(
    "ruling",
    (
        ("plain", "blanko", "uni", "PLN"),
        ("lined", "liniert", "ligné", "LIN"),
        ("dotted", "gepunktet", "pointillé", "DOT"),
    ),
    3,
)
DIAMETER: Final = OptionValues(
    "diameter", tuple((f"{n} cm",) * 3 + (str(n),) for n in (20, 24, 28)), 3
)
SPAN: Final = OptionValues(
    "dimensions",
    tuple((f"{a} x {b} cm",) * 3 + (f"{a}X{b}",) for a, b in ((50, 80), (130, 170), (160, 230))),
    3,
)
BINDING: Final = OptionValues(
    "binding",
    (
        ("paperback", "Taschenbuch", "broché", "PB"),
        ("hardcover", "gebunden", "relié", "HC"),
    ),
    2,
)

TWO_COLOURS: Final = replace(COLOUR, max_values=2)
THREE_COLOURS: Final = replace(COLOUR, max_values=3)
FIVE_COLOURS: Final = replace(COLOUR, max_values=5)
BLADE: Final = OptionValues("blade", tuple((f"{n} cm",) * 3 + (str(n),) for n in (9, 15, 21)), 3)
NIB: Final = OptionValues("nib", tuple((width,) * 4 for width in ("F", "M", "B")), 3)
PERSONS: Final = OptionValues("persons", tuple((str(n),) * 4 for n in (1, 2, 4)), 3)

CATEGORIES: Final[Mapping[str, CategoryTemplate]] = {
    "clothing": CategoryTemplate("Clothing", None, "Kleidung", "Vêtements"),
    "shirts": CategoryTemplate("Shirts", "clothing", "Hemden", "Chemises"),
    "trousers": CategoryTemplate("Trousers", "clothing", "Hosen", "Pantalons"),
    "jackets": CategoryTemplate("Jackets", "clothing", "Jacken", "Vestes"),
    "knitwear": CategoryTemplate("Knitwear", "clothing", "Strick", "Maille"),
    "socks": CategoryTemplate("Socks", "clothing", "Socken", "Chaussettes"),
    "shoes": CategoryTemplate("Shoes", None, "Schuhe", "Chaussures"),
    "boots": CategoryTemplate("Boots", "shoes", "Stiefel", "Bottes"),
    "sneakers": CategoryTemplate("Sneakers", "shoes", "Turnschuhe", "Baskets"),
    "kitchen": CategoryTemplate("Kitchen", None, "Küche", "Cuisine"),
    "pans": CategoryTemplate("Pans", "kitchen", "Pfannen", "Poêles"),
    "knives": CategoryTemplate("Knives", "kitchen", "Messer", "Couteaux"),
    "cups": CategoryTemplate("Cups", "kitchen", "Tassen", "Tasses"),
    "bottles": CategoryTemplate("Bottles", "kitchen", "Flaschen", "Bouteilles"),
    "home": CategoryTemplate("Home", None, "Wohnen", "Maison"),
    "lamps": CategoryTemplate("Lamps", "home", "Lampen", "Lampes"),
    "blankets": CategoryTemplate("Blankets", "home", "Decken", "Couvertures"),
    "rugs": CategoryTemplate("Rugs", "home", "Teppiche", "Tapis"),
    "food": CategoryTemplate("Food", None, "Lebensmittel", "Épicerie"),
    "tea": CategoryTemplate("Tea", "food", "Tee", "Thé"),
    "coffee": CategoryTemplate("Coffee", "food", "Kaffee", "Café"),
    "chocolate": CategoryTemplate("Chocolate", "food", "Schokolade", "Chocolat"),
    "outdoor": CategoryTemplate("Outdoor", None, "Draußen", "Plein air"),
    "backpacks": CategoryTemplate("Backpacks", "outdoor", "Rucksäcke", "Sacs à dos"),
    "tents": CategoryTemplate("Tents", "outdoor", "Zelte", "Tentes"),
    "desk": CategoryTemplate("Desk", None, "Schreibtisch", "Bureau"),
    "notebooks": CategoryTemplate("Notebooks", "desk", "Notizbücher", "Carnets"),
    "pens": CategoryTemplate("Pens", "desk", "Stifte", "Stylos"),
    "books": CategoryTemplate("Books", None, "Bücher", "Livres"),
}

PRODUCT_TEMPLATES: Final = (
    ProductTemplate(
        "SHI", "Shirt", "Hemd", "Chemise", "shirts", (3900, 11900), (180, 320),
        (CLOTHES_SIZE, COLOUR), ("organic cotton", "linen", "flannel", "poplin"),
        ("for the office and the evening after it", "for warm days", "to wear open or buttoned"),
    ),
    ProductTemplate(
        "TRO", "Trousers", "Hose", "Pantalon", "trousers", (5900, 15900), (400, 700),
        (CLOTHES_SIZE, COLOUR), ("twill", "corduroy", "denim", "wool"),
        ("for work and for the road", "with room for a folding rule", "with a straight leg"),
    ),
    ProductTemplate(
        "JAC", "Jacket", "Jacke", "Veste", "jackets", (9900, 34900), (500, 1400),
        (CLOTHES_SIZE, COLOUR), ("waxed cotton", "boiled wool", "recycled nylon"),
        ("for wind and drizzle", "for the first cold mornings", "that packs into its own pocket"),
    ),
    ProductTemplate(
        "KNI", "Pullover", "Pullover", "Pull", "knitwear", (6900, 18900), (300, 800),
        (CLOTHES_SIZE, COLOUR), ("merino", "lambswool", "cotton yarn", "alpaca"),
        ("knitted in one piece", "with a collar that stands", "for long evenings outside"),
    ),
    ProductTemplate(
        "SOC", "Socks", "Socken", "Chaussettes", "socks", (900, 2400), (40, 120),
        (COLOUR,), ("merino", "cotton", "bamboo viscose"),
        ("without a seam at the toes", "that stay up", "for boots and for the sofa"),
    ),
    ProductTemplate(
        "BOO", "Boots", "Stiefel", "Bottes", "boots", (12900, 32900), (1100, 1900),
        (SHOE_SIZE,), ("full-grain leather", "suede", "rubber"),
        ("that can be soled again", "for mud and for town", "with a welt sewn by hand"),
    ),
    ProductTemplate(
        "SNE", "Sneakers", "Turnschuhe", "Baskets", "sneakers", (6900, 18900), (500, 900),
        (SHOE_SIZE, TWO_COLOURS), ("canvas", "leather", "recycled mesh"),
        ("for every day", "with a sole of natural rubber", "light enough to forget"),
    ),
    ProductTemplate(
        "PAN", "Pan", "Pfanne", "Poêle", "pans", (3900, 16900), (900, 2900),
        (DIAMETER,), ("cast iron", "carbon steel", "copper", "stainless steel"),
        ("for gas, induction and the oven", "that gets better with use", "for eggs and for steaks"),
    ),
    ProductTemplate(
        "KNF", "Kitchen Knife", "Küchenmesser", "Couteau de cuisine", "knives", (2900, 24900),
        (90, 320), (BLADE,),
        ("carbon steel", "Damascus steel", "stainless steel"),
        ("ground by hand", "with a handle of walnut", "that holds its edge"),
    ),
    ProductTemplate(
        "CUP", "Cup", "Tasse", "Tasse", "cups", (900, 3900), (180, 420),
        (COLOUR,), ("stoneware", "porcelain", "enamel"),
        ("thrown by hand", "for coffee, tea and soup", "that fits any saucer"),
    ),
    ProductTemplate(
        "BOT", "Bottle", "Flasche", "Bouteille", "bottles", (1900, 4900), (200, 600),
        (VOLUME, THREE_COLOURS), ("stainless steel", "glass", "aluminium"),
        ("that keeps tea hot for a day", "that does not leak", "for school, work and mountain"),
    ),
    ProductTemplate(
        "LAM", "Lamp", "Lampe", "Lampe", "lamps", (4900, 39900), (700, 4200),
        (COLOUR,), ("oak", "brass", "paper", "aluminium"),
        ("with a warm light", "for the corner where one reads", "that can be dimmed"),
    ),
    ProductTemplate(
        "BLA", "Blanket", "Decke", "Couverture", "blankets", (4900, 19900), (700, 2200),
        (FIVE_COLOURS,), ("wool", "cotton", "cashmere"),
        ("for the sofa", "woven with fringes", "that is warm and light"),
    ),
    ProductTemplate(
        "RUG", "Rug", "Teppich", "Tapis", "rugs", (7900, 69900), (1500, 9000),
        (SPAN, THREE_COLOURS), ("wool", "jute", "cotton"),
        ("knotted by hand", "that lies flat", "for bare feet"),
    ),
    ProductTemplate(
        "TEA", "Tea", "Tee", "Thé", "tea", (490, 3900), (100, 1000),
        (PACK,), ("green leaf", "black leaf", "oolong", "rooibos"),
        ("picked in spring", "for the afternoon", "that takes milk"),
    ),
    ProductTemplate(
        "COF", "Coffee", "Kaffee", "Café", "coffee", (790, 3200), (250, 1000),
        (PACK,), ("arabica", "robusta and arabica", "single origin beans"),
        ("roasted slowly", "for espresso", "for the filter"),
    ),
    ProductTemplate(
        "CHO", "Chocolate", "Schokolade", "Chocolat", "chocolate", (290, 1490), (70, 500),
        (PACK,), ("dark cocoa", "milk", "cocoa and hazelnut"),
        ("with sea salt", "with 70 % cocoa", "broken, not cut"),
    ),
    ProductTemplate(
        "BAC", "Backpack", "Rucksack", "Sac à dos", "backpacks", (6900, 24900), (600, 1900),
        (COLOUR,), ("recycled nylon", "waxed canvas", "cordura"),
        ("for a day", "for a weekend", "with a sleeve for a laptop"),
    ),
    ProductTemplate(
        "TEN", "Tent", "Zelt", "Tente", "tents", (14900, 79900), (1400, 6500),
        (PERSONS,),
        ("ripstop nylon", "polycotton"),
        ("that stands in five minutes", "for wind and snow", "with two doors"),
    ),
    ProductTemplate(
        "NOT", "Notebook", "Notizbuch", "Carnet", "notebooks", (590, 2900), (120, 480),
        (RULING, THREE_COLOURS), ("thread-bound paper", "recycled paper"),
        ("that lies open", "for ink that does not bleed", "with numbered pages"),
    ),
    ProductTemplate(
        "PEN", "Fountain Pen", "Füllfederhalter", "Stylo plume", "pens", (1900, 29900), (15, 60),
        (NIB,),
        ("brass", "resin", "aluminium"),
        ("that fills from a bottle", "for long letters", "with a steel nib"),
    ),
    ProductTemplate(
        "BOK", "Field Guide", "Naturführer", "Guide nature", "books", (1200, 5900), (200, 1400),
        (BINDING,), ("wood-free paper",),
        ("for the pocket", "with drawings by hand", "to read and to look things up"),
    ),
)  # fmt: skip

MAKERS: Final = (
    "Alder & Finch", "Arbeit", "Birchwood", "Brook Lane", "Calder", "Castor", "Dovetail", "Eskil",
    "Fjellheim", "Foundry No. 9", "Grove", "Hallam", "Juniper", "Kestrel", "Lindqvist",
    "Maison Rue", "Morrow", "Nordhaven", "Oakhill", "Pascale", "Quarry", "Rowan", "Saltmarsh",
    "Tidewater",
    "Umbra", "Vale", "Westerly", "Yarrow",
)  # fmt: skip
SERIES: Final = (
    "Aalto", "Abel", "Ada", "Anker", "Aster", "Basil", "Bergen", "Bruno", "Cala", "Cedar", "Clara",
    "Cove", "Dahlia", "Delta", "Dune", "Echo", "Edda", "Elm", "Ember", "Erik", "Fern", "Fjord",
    "Flora", "Garnet", "Glen", "Greta", "Harbour", "Hazel", "Heron", "Ida", "Iris", "Isle", "Ivo",
    "Jonas", "Jura", "Karin", "Kiln", "Lark", "Lena", "Linden", "Loch", "Luna", "Magnus", "Maple",
    "Marlo", "Mira", "Moss", "Nell", "Nico", "North", "Nova", "Olive", "Orla", "Otto", "Pearl",
    "Piet", "Pine", "Quill", "Reed", "Ridge", "Robin", "Rosa", "Runa", "Sage", "Selma", "Sol",
    "Stone", "Sven", "Tarn", "Thea", "Tilda", "Tor", "Una", "Vera", "Vik", "Wren", "Yuki", "Zara",
)  # fmt: skip
