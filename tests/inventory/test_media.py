"""The contract suite of `MediaLibrary`, in memory and on Postgres, and its behaviour at crashes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha256
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from markethall.inventory.media.contract import (
    ImageRefused,
    ImageSizeNotFound,
    MediaNotFound,
    MediaView,
    UploadedFile,
)
from markethall.inventory.media.domain import ProcessedImage
from markethall.inventory.media.memory import MemoryMediaStorage
from markethall.inventory.media.service import GARBAGE_AGE
from markethall.shared.idempotency.records import IdempotentCommand
from markethall.shared.kernel.errors import Overloaded, PreconditionFailed, Unavailable
from markethall.shared.kernel.ids import new_id
from markethall.shared.kernel.pagination import PageQuery
from tests.inventory.conftest import ANYONE, STAFF, InventoryApp, build_inventory_app, no_key
from tests.inventory.image_files import InProcessImages, png


class Crash(BaseException):
    """Stops the operation without any further step, as the end of the process does."""


class PausedImages(InProcessImages):
    """Decodes the first image only after `continued` is set."""

    def __init__(self) -> None:
        self.started, self.continued = asyncio.Event(), asyncio.Event()

    async def process(self, data: bytes) -> ProcessedImage:
        if not self.started.is_set():
            self.started.set()
            await self.continued.wait()
        return await super().process(data)


class FragileStorage(MemoryMediaStorage):
    """Raises `failure`, if it is set, when a file is stored or deleted."""

    failure: BaseException | None = None
    puts_before_failure = 0

    async def put(self, key: UUID, width: int, data: bytes) -> None:
        if self.failure and self.puts_before_failure <= 0:
            raise self.failure
        self.puts_before_failure -= 1
        await super().put(key, width, data)

    async def delete(self, key: UUID) -> None:
        if self.failure:
            raise self.failure
        await super().delete(key)

    @property
    def keys(self) -> set[UUID]:
        return set(self._files)


@pytest.fixture(params=["memory", "sql"])
def inventory_app(request: pytest.FixtureRequest) -> InventoryApp:
    postgres = request.getfixturevalue("postgres") if request.param == "sql" else None
    return build_inventory_app(request.param, postgres)


@pytest.fixture
def storage(inventory_app: InventoryApp) -> FragileStorage:
    storage = FragileStorage(inventory_app.clock)
    inventory_app.container.media_storage.override(storage)
    inventory_app.container.image_processor.override(InProcessImages())
    return storage


async def chunks_of(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100):
        yield data[start : start + 100]


async def upload(
    inventory_app: InventoryApp, data: bytes = b"", attempt: IdempotentCommand | None = None
) -> MediaView:
    media = inventory_app.container.media()
    async with media.upload(STAFF, chunks_of(data or png(200, 100))) as file:
        return await media.create(STAFF, file, attempt or no_key())


async def content(inventory_app: InventoryApp, view: MediaView, width: int) -> bytes:
    media = inventory_app.container.media()
    return await media.read_file(ANYONE, await media.find_file(ANYONE, view.media_id, width))


async def test_uploaded_image_has_its_sizes(
    inventory_app: InventoryApp, storage: FragileStorage
) -> None:
    made = await upload(inventory_app)

    assert made == await inventory_app.container.media().get_media(ANYONE, made.media_id)
    assert (made.width, made.height, made.version) == (200, 100, 1)
    assert made.url == f"/media/{made.media_id}/200.webp"
    assert [(size.width, size.height) for size in made.sizes] == [(160, 80), (200, 100)]
    for size in made.sizes:
        assert (await content(inventory_app, made, size.width))[8:12] == b"WEBP"
    with pytest.raises(ImageSizeNotFound) as error:
        await content(inventory_app, made, 320)
    assert error.value.details["widths"] == [160, 200]


async def test_upload_is_read_in_chunks_and_digested(
    inventory_app: InventoryApp, storage: FragileStorage
) -> None:
    async with inventory_app.container.media().upload(STAFF, chunks_of(b"a" * 250)) as file:
        assert file == UploadedFile(b"a" * 250, sha256(b"a" * 250).hexdigest())


async def test_refused_file_leaves_nothing(
    inventory_app: InventoryApp, storage: FragileStorage
) -> None:
    with pytest.raises(ImageRefused):
        await upload(inventory_app, b"<svg/>")

    assert storage.keys == set()
    assert (await inventory_app.container.media().list_media(STAFF, PageQuery())).items == ()


async def test_upload_that_outlives_its_lease_stores_one_image(
    inventory_app: InventoryApp, storage: FragileStorage
) -> None:
    """A retry takes over the key after its lease, while the first attempt still decodes."""
    images = PausedImages()
    inventory_app.container.image_processor.override(images)
    attempt = no_key()

    first = asyncio.create_task(upload(inventory_app, attempt=attempt))
    await images.started.wait()
    second = await upload(inventory_app, attempt=attempt)
    images.continued.set()

    assert await first == second
    media = inventory_app.container.media()
    assert (await media.list_media(STAFF, PageQuery())).items == (second,)
    assert len(storage.keys) == 2
    await collect_garbage(inventory_app)
    assert len(storage.keys) == 1
    assert await content(inventory_app, second, 160)


async def test_attempt_with_the_same_id_creates_one_image(
    inventory_app: InventoryApp, storage: FragileStorage
) -> None:
    attempt = no_key()

    made = [await upload(inventory_app, attempt=attempt) for _ in range(2)]

    assert made[0] == made[1]
    assert made[0].media_id == attempt.id
    await collect_garbage(inventory_app)
    assert len(storage.keys) == 1
    assert await content(inventory_app, made[0], 160)


async def test_images_are_listed_newest_first(
    inventory_app: InventoryApp, storage: FragileStorage
) -> None:
    made = [await upload(inventory_app) for _ in range(5)]
    media = inventory_app.container.media()

    found: list[MediaView] = []
    cursor = None
    while not found or cursor:
        page = await media.list_media(STAFF, PageQuery(limit=2, cursor=cursor))
        found += page.items
        cursor = page.next_cursor

    assert found == made[::-1]


async def test_deleted_image_is_gone(inventory_app: InventoryApp, storage: FragileStorage) -> None:
    made = await upload(inventory_app)
    media = inventory_app.container.media()
    file = await media.find_file(ANYONE, made.media_id, 160)
    with pytest.raises(PreconditionFailed):
        await media.delete(STAFF, made.media_id, {2})

    await media.delete(STAFF, made.media_id, {1})

    assert storage.keys == set()
    with pytest.raises(MediaNotFound):
        await media.get_media(ANYONE, made.media_id)
    with pytest.raises(MediaNotFound):
        # a request that found the file before it was deleted
        await media.read_file(ANYONE, file)
    with pytest.raises(MediaNotFound):
        await media.delete(STAFF, made.media_id, {1})


async def collect_garbage(inventory_app: InventoryApp) -> None:
    inventory_app.clock.advance(seconds=GARBAGE_AGE.total_seconds() + 1)
    await inventory_app.container.media_garbage().run_once()


@pytest.mark.parametrize("stored", [0, 1])
async def test_crash_between_files_leaves_no_image(
    inventory_app: InventoryApp, storage: FragileStorage, stored: int
) -> None:
    kept = await upload(inventory_app)
    storage.failure, storage.puts_before_failure = Crash(), stored

    with pytest.raises(Crash):
        await upload(inventory_app)

    storage.failure = None
    page = await inventory_app.container.media().list_media(STAFF, PageQuery())
    assert page.items == (kept,)
    assert len(storage.keys) == 1 + stored
    await collect_garbage(inventory_app)
    assert len(storage.keys) == 1
    assert await content(inventory_app, kept, 160)


async def test_crash_between_files_and_row_leaves_no_image(
    inventory_app: InventoryApp, storage: FragileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = inventory_app.container.media()
    attempt = no_key()
    database = inventory_app.container.database()

    def crash() -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(database, "transaction", crash)
        with pytest.raises(Crash):
            await upload(inventory_app, attempt=attempt)

    assert len(storage.keys) == 1
    with pytest.raises(MediaNotFound):
        await media.get_media(ANYONE, attempt.id)
    # the retry stores its own files
    made = await upload(inventory_app, attempt=attempt)
    assert len(storage.keys) == 2
    await collect_garbage(inventory_app)
    assert len(storage.keys) == 1
    assert await content(inventory_app, made, 200)


async def test_crash_after_deletion_of_row_leaves_garbage_only(
    inventory_app: InventoryApp, storage: FragileStorage
) -> None:
    made, kept = await upload(inventory_app), await upload(inventory_app)
    storage.failure = Crash()

    with pytest.raises(Crash):
        await inventory_app.container.media().delete(STAFF, made.media_id, {1})

    storage.failure = None
    with pytest.raises(MediaNotFound):
        await inventory_app.container.media().get_media(ANYONE, made.media_id)
    assert len(storage.keys) == 2
    await collect_garbage(inventory_app)
    assert len(storage.keys) == 1
    assert await content(inventory_app, kept, 160)


async def test_deletion_succeeds_without_the_storage(
    inventory_app: InventoryApp, storage: FragileStorage
) -> None:
    """After the row is deleted, an error would tell the client that the image still exists."""
    made = await upload(inventory_app)
    storage.failure = Unavailable(dependency="media storage", reason="OSError")

    with capture_logs() as lines:
        await inventory_app.container.media().delete(STAFF, made.media_id, {1})

    with pytest.raises(MediaNotFound):
        await inventory_app.container.media().get_media(ANYONE, made.media_id)
    assert [line["event"] for line in lines] == ["media.file_deletion_postponed"]


async def test_image_is_deleted_once(inventory_app: InventoryApp, storage: FragileStorage) -> None:
    media = inventory_app.container.media()

    for _ in range(10):
        made = await upload(inventory_app)
        deletions = (media.delete(STAFF, made.media_id, {1}) for _ in range(4))
        results = await asyncio.gather(*deletions, return_exceptions=True)
        assert results.count(None) == 1
        assert sum(isinstance(result, MediaNotFound) for result in results) == 3


async def test_files_of_another_database_are_kept(
    inventory_app: InventoryApp, storage: FragileStorage
) -> None:
    """The database is new, but the directory still has the files of the previous database."""
    keys = {new_id() for _ in range(3)}
    for key in keys:
        await storage.put(key, 160, b"file")

    with capture_logs() as lines:
        await collect_garbage(inventory_app)
    assert storage.keys == keys
    assert [(line["event"], line["count"]) for line in lines] == [("media.garbage_kept", 3)]

    made = await upload(inventory_app)
    await collect_garbage(inventory_app)
    assert len(storage.keys) == 1
    assert await content(inventory_app, made, 160)


async def test_young_files_without_row_are_kept(
    inventory_app: InventoryApp, storage: FragileStorage
) -> None:
    key = new_id()
    await storage.put(key, 160, b"file of a running upload")

    inventory_app.clock.advance(seconds=(GARBAGE_AGE - timedelta(minutes=1)).total_seconds())
    await inventory_app.container.media_garbage().run_once()

    assert storage.keys == {key}


async def test_row_is_not_written_long_after_the_files(
    inventory_app: InventoryApp, storage: FragileStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files without a row could already be deleted as unused."""
    put = storage.put

    async def put_slowly(key: UUID, width: int, data: bytes) -> None:
        await put(key, width, data)
        inventory_app.clock.advance(hours=1)

    monkeypatch.setattr(storage, "put", put_slowly)

    with pytest.raises(Overloaded):
        await upload(inventory_app)

    page = await inventory_app.container.media().list_media(STAFF, PageQuery())
    assert page.items == ()


async def test_uploads_at_once_are_limited(
    inventory_app: InventoryApp, storage: FragileStorage
) -> None:
    media = inventory_app.container.media()
    release = asyncio.Event()

    async def slow_chunks() -> AsyncIterator[bytes]:
        yield b"first"
        await release.wait()

    async def read() -> int:
        async with media.upload(STAFF, slow_chunks()) as file:
            return len(file.data)

    waiting = [asyncio.create_task(read()) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await read()

    release.set()
    assert await asyncio.gather(*waiting) == [5] * 4
    assert await read() == 5
