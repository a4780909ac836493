"""Files as spreadsheets write them: separators, line ends, empty columns, places of errors."""

import pytest

from markethall.inventory.imports.contract import ImportFormat
from tests.inventory.conftest import STAFF, build_inventory_app
from tests.inventory.import_client import ImportClient, counts

NEW_COLUMNS = (
    "Title,URL handle,Description,Vendor,Product category,Type,Tags,Published on online store,"
    "Status,SKU,Barcode,Option1 name,Option1 value,Price,Compare-at price,Inventory quantity,"
    "Weight value (grams),Product image URL,Variant image URL"
)
NEW_ROW = (
    "Mug,mug,<p>A mug</p>,Acme,Home > Kitchen,Kitchen,blue,TRUE,Active,MUG-1,4006,Colour,Blue,"
    "9.50,12,4,300,https://i.example/m.png,https://i.example/v.png"
)


@pytest.fixture
def import_client() -> ImportClient:
    return ImportClient(build_inventory_app("memory"))


@pytest.mark.parametrize(
    "header",
    [
        NEW_COLUMNS,
        NEW_COLUMNS.upper(),
        NEW_COLUMNS.lower(),
        ",".join(f"  {name.replace(' ', '  ')} " for name in NEW_COLUMNS.split(",")),
    ],
)
async def test_new_names_of_shopify_columns_are_read(
    import_client: ImportClient, header: str
) -> None:
    done = await import_client.import_to_end(f"{header}\n{NEW_ROW}\n")

    assert (done.format, counts(done)) == (ImportFormat.SHOPIFY, (1, 1, 0, 0, 0))
    mug = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "MUG-1")
    assert (mug.name, mug.family, mug.description) == ("Mug", "mug", "A mug")
    assert (mug.category, mug.tags, mug.barcode) == ("Kitchen", ("blue",), "4006")
    assert (mug.price.amount, mug.compare_at, mug.weight_grams) == (950, 1200, 300)
    assert (dict(mug.options), mug.available) == ({"Colour": "Blue"}, 4)
    assert mug.images == ("https://i.example/v.png", "https://i.example/m.png")


async def test_old_names_of_shopify_columns_are_read_in_any_case(
    import_client: ImportClient,
) -> None:
    file = " handle ,TITLE,variant  sku,Variant price\nmug,Mug,MUG-1,9.50\n"

    done = await import_client.import_to_end(file)

    assert (done.format, counts(done)) == (ImportFormat.SHOPIFY, (1, 1, 0, 0, 0))


async def test_same_column_in_both_generations_is_refused(import_client: ImportClient) -> None:
    done = await import_client.import_to_end("Handle,Title,Variant SKU,SKU\nmug,Mug,A,B\n")

    assert done.failure is not None
    assert done.failure.message == "The columns Variant SKU and SKU are the same."


@pytest.mark.parametrize(
    "file",
    [
        "sku,name,price,description\rCR-1,Tea,9.50,a;b;c;d;e;f;g;h\r",
        "sku,name,price,description\rCR-1,Tea,9.50,a;b;c;d;e;f;g;h",
        'sku;"name";price;description\nCR-1;Tea;9.50;"a;b;c;d;e;f;g;h"\n',
        'sep=;\nsku;name;price;description\nCR-1;Tea;9.50;"a;b;c;d;e;f;g;h"\n',
        "SEP=,\r\nsku,name,price,description\r\nCR-1,Tea,9.50,a;b;c;d;e;f;g;h\r\n",
        '\ufeff"sep=|"\nsku|name|price|description\nCR-1|Tea|9.50|a;b;c;d;e;f;g;h\n',
        "sku,name,price,description,,\nCR-1,Tea,9.50,a;b;c;d;e;f;g;h,,\n",
        "sku,name,price,description\nCR-1,Tea,9.50,a;b;c;d;e;f;g;h,, ,\n",
        'sku;name;price;description;;\r\nCR-1;Tea;9.50;"a;b;c;d;e;f;g;h";;\r\n;;;;;\r\n',
    ],
)
async def test_file_is_read_as_a_spreadsheet_means_it(
    import_client: ImportClient, file: str
) -> None:
    done = await import_client.import_to_end(file)

    assert counts(done) == (1, 1, 0, 0, 0)
    tea = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "CR-1")
    assert (tea.name, tea.price.amount, tea.description) == ("Tea", 950, "a;b;c;d;e;f;g;h")


async def test_text_behind_the_last_column_is_an_error(import_client: ImportClient) -> None:
    done = await import_client.import_to_end("sku,name,price,,\nA-1,Tea,1,,x\n")

    [error] = await import_client.errors(done)
    assert (error.line, error.code) == (2, "ragged")


async def test_lines_are_counted_after_a_separator_line(import_client: ImportClient) -> None:
    done = await import_client.import_to_end("sep=;\nSku ;Name;PRICE\nA-1;Tea;cheap\n")

    [error] = await import_client.errors(done)
    assert (error.line, error.field, error.code) == (3, "PRICE", "invalid")


async def test_error_names_the_column_and_line_of_its_value(import_client: ImportClient) -> None:
    long = "N" * 300
    header = "Handle,Title,Vendor,Option1 Name,Option1 Value,option2 name,OPTION2 value,Price\n"
    rows = [
        f"a,A,,{long},S,,,1",
        "a,,,,M,,,1",
        f"b,B,,Size,S,Colour,{long},1",
        "b,,,,M,,Red,1",
        f"b,,,,L,,{long},1",
        f"c,C,{long * 4},Size,S,,,1",
        "c,,,,M,,,cheap",
    ]

    done = await import_client.import_to_end(header + "\n".join(rows), dry_run=True)

    found = [(error.line, error.field) for error in await import_client.errors(done)]
    assert sorted(found) == [
        (2, "Option1 Name"),
        (4, "OPTION2 value"),
        (6, "OPTION2 value"),
        (7, "Vendor"),
        (8, "Price"),
    ]


@pytest.mark.parametrize("name", ["   ", "\u00a0", "\u200b\u200b", "\u3164", "\t"])
@pytest.mark.parametrize("column", ["name", "category", "family", "tax_class"])
async def test_name_without_a_visible_character_is_an_error(
    import_client: ImportClient, name: str, column: str
) -> None:
    cells = {"sku": "A-1", "name": "Tea", "price": "1", column: name}

    done = await import_client.import_to_end(
        ",".join(cells) + "\n" + ",".join(cells.values()) + "\n"
    )

    [error] = await import_client.errors(done)
    assert (error.field, error.code) == (column, "blank")
