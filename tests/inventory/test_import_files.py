"""Test imports of spreadsheet files: separators, line ends, empty columns, error positions."""

import asyncio

import pytest

from markethall.inventory.catalogue.contract.fields import ProductStatus
from markethall.inventory.imports.contract import ImportFormat, NoteKind
from markethall.inventory.imports.domain.foreign_values import stable_sku
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
    blank = "\u200b"
    header = "Handle,Title,Option1 Name,Option1 Value,option2 name,OPTION2 value,Price\n"
    rows = [
        f"a,A,{blank},S,,,1",
        "a,,,M,,,1",
        f"b,B,Size,S,Colour,{blank},1",
        "b,,,M,,Red,1",
        f"c,{blank},Size,S,,,1",
        "c,,,M,,,cheap",
    ]

    done = await import_client.import_to_end(header + "\n".join(rows), dry_run=True)

    found = [(error.line, error.field) for error in await import_client.errors(done)]
    assert sorted(found) == [
        (2, "Option1 Name"),
        (4, "OPTION2 value"),
        (6, "Title"),
        (7, "Price"),
    ]


async def test_values_over_a_limit_are_cut_with_a_warning(import_client: ImportClient) -> None:
    tags = " | ".join(f"t{n}" for n in range(260)).replace(" | ", ", ") + ", " + "x" * 300
    header = "Handle,Title,Body (HTML),Vendor,Type,Tags,Status,Option1 Name,Option1 Value,"
    header += "Variant Price,Variant Barcode\n"
    row = (
        f'h,{"T" * 300},<p>{"B" * 60_000}</p>,{"V" * 1200},{"C" * 256},"{tags}",unlisted,'
        f"{'N' * 256},{'O' * 256},1,{'9' * 65}\n"
    )

    done = await import_client.import_to_end(header + row)

    assert (done.rows.created, done.rows.failed, done.rows.warnings) == (1, 0, 10)
    warnings = await import_client.notes(done, NoteKind.WARNING)
    assert {(warning.line, warning.field, warning.code) for warning in warnings} == {
        (2, "Title", "cut"),
        (2, "Body (HTML)", "cut"),
        (2, "Vendor", "cut"),
        (2, "Type", "cut"),
        (2, "Tags", "cut"),
        (2, "Tags", "dropped"),
        (2, "Status", "unknown_status"),
        (2, "Option1 Name", "cut"),
        (2, "Option1 Value", "cut"),
        (2, "Variant Barcode", "dropped"),
    }
    sku = stable_sku("h", {"N" * 255: "O" * 255})
    made = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, sku)
    assert (made.name, made.status) == ("T" * 255, ProductStatus.DRAFT)
    assert (len(made.description), len(made.tags)) == (50_000, 250)


async def test_values_within_the_limits_of_shopify_are_taken(import_client: ImportClient) -> None:
    tags = ",".join(f"{n:0255}" for n in range(250))
    rows = f'{"h" * 255},{"T" * 255},"{tags}",{"N" * 255},{"O" * 255},1,active\n'
    header = "Handle,Title,Tags,Option1 Name,Option1 Value,Variant Price,Status\n"

    done = await import_client.import_to_end(header + rows)

    assert (counts(done), done.rows.warnings) == ((1, 1, 0, 0, 0), 0)


async def test_bad_image_does_not_fail_its_row(import_client: ImportClient) -> None:
    urls = ["https://i.example/a.jpg ", "//i.example/b.jpg", "i.example/c d.jpg", "no image",
            "ftp://i.example/e.jpg", "HTTPS://i.example/f.jpg"]  # fmt: skip
    header = "Handle,Title,Variant SKU,Variant Price,Image Src,Variant Image\n"
    rows = [f"g,G,G-1,1,{urls[0]},javascript:x", *(f"g,,,,{url}," for url in urls[1:])]

    done = await import_client.import_to_end(header + "\n".join(rows))

    made = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "G-1")
    assert made.images == (
        "https://i.example/a.jpg",
        "https://i.example/b.jpg",
        "https://i.example/c%20d.jpg",
        "https://i.example/f.jpg",
    )
    warnings = await import_client.notes(done, NoteKind.WARNING)
    assert [(warning.line, warning.field) for warning in warnings] == [
        (5, "Image Src"),
        (6, "Image Src"),
        (2, "Variant Image"),
    ]


async def test_images_over_the_limit_are_reported(import_client: ImportClient) -> None:
    header = "Handle,Title,Variant SKU,Variant Price,Image Src\n"
    rows = ["g,G,G-1,1,", *(f"g,,,,https://i.example/{n}.jpg" for n in range(252))]

    done = await import_client.import_to_end(header + "\n".join(rows))

    made = await import_client.inventory_app.catalogue.get_product_by_sku(STAFF, "G-1")
    assert len(made.images) == 250
    warnings = await import_client.notes(done, NoteKind.WARNING)
    assert [(w.line, w.message) for w in warnings] == [
        (253, "a product has at most 250 images: dropped"),
        (254, "a product has at most 250 images: dropped"),
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


@pytest.mark.parametrize(
    ("format_", "head"),
    [
        (ImportFormat.CSV, "sku,name,price\n"),
        (ImportFormat.NDJSON, ""),
        (ImportFormat.CSV, "Handle,Title,Variant SKU,Variant Price\n"),
        (ImportFormat.CSV, "Handle,Title,Variant SKU,Variant Price\nmug,Mug,M-1,1\n"),
        (ImportFormat.CSV, "ID,SKU,Name,Regular price\n1,mug-1,Mug,1\n"),
    ],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
async def test_blank_lines_let_other_tasks_run(
    import_client: ImportClient, format_: ImportFormat, head: str, line_end: str
) -> None:
    data = (head + line_end * 200_000).encode()
    started = await import_client.start(data, format=format_)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other_task = asyncio.create_task(count_turns())
    await import_client.inventory_app.container.import_worker().process_next(started.import_id)
    other_task.cancel()

    done = await import_client.imports.get_import(STAFF, started.import_id)
    assert (done.rows.failed, done.rows.read) == (0, head.count(",Mug,"))
    assert turns >= len(data) // 5000
