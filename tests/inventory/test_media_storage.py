"""The contract suite of `MediaStorage`: in memory, in a directory, and in S3 over HTTP."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from markethall.app import create_app
from markethall.inventory.media.gateway import s3_storage
from markethall.inventory.media.gateway.directory_storage import DirectoryStorage
from markethall.inventory.media.gateway.s3_storage import S3Storage
from markethall.inventory.media.memory import MemoryMediaStorage
from markethall.inventory.media.ports import MediaStorage, StorageMisconfigured
from markethall.inventory.settings import InventorySettings, S3Bucket
from markethall.settings import read_settings
from markethall.shared.composition.settings import SettingsError, read_one
from markethall.shared.kernel.clock import utc_now
from markethall.shared.kernel.errors import Unavailable
from markethall.shared.kernel.ids import new_id
from tests.inventory.s3_server import ACCESS_KEY_ID, BUCKET, S3Server, s3_server


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as server:
        yield server


def bucket_of(server: S3Server) -> S3Bucket:
    return S3Bucket(
        name=BUCKET,
        region="eu-central-1",
        prefix="shop/media",
        endpoint=server.url,
        access_key_id=ACCESS_KEY_ID,
        secret_access_key="secret",
    )


@pytest.fixture(params=["memory", "directory", "s3"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[MediaStorage]:
    made: MediaStorage
    match request.param:
        case "memory":
            made = MemoryMediaStorage(utc_now)
        case "directory":
            made = DirectoryStorage(tmp_path / "media")
        case _:
            made = S3Storage(bucket_of(request.getfixturevalue("server")))
    await made.open()
    yield made
    await made.close()


async def keys_stored_before(storage: MediaStorage, before: datetime) -> set[UUID]:
    return {key async for part in storage.list_keys(before) for key in part}


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=1)


async def test_stored_file_is_read_unchanged(storage: MediaStorage) -> None:
    key, data = new_id(), os.urandom(300_000)

    await storage.put(key, 160, data)
    await storage.put(key, 320, b"other")

    assert await storage.get(key, 160) == data
    assert await storage.get(key, 320) == b"other"
    assert await storage.get(key, 640) is None
    assert await storage.get(new_id(), 160) is None


async def test_stored_file_replaces_another(storage: MediaStorage) -> None:
    key = new_id()

    for data in (b"old and longer", b"new"):
        await storage.put(key, 160, data)

    assert await storage.get(key, 160) == b"new"


async def test_delete_removes_all_files_of_one_key(storage: MediaStorage) -> None:
    key, other = new_id(), new_id()
    for width in (160, 320, 640, 960, 1280):
        await storage.put(key, width, b"file")
    await storage.put(other, 160, b"file")

    await storage.delete(key)
    await storage.delete(key)

    assert [await storage.get(key, width) for width in (160, 960, 1280)] == [None] * 3
    assert await storage.get(other, 160) == b"file"
    assert await keys_stored_before(storage, soon()) == {other}


async def test_keys_are_listed_by_age(storage: MediaStorage) -> None:
    keys = {new_id() for _ in range(5)}
    for key in keys:
        await storage.put(key, 160, b"file")
        await storage.put(key, 320, b"file")

    assert await keys_stored_before(storage, soon()) == keys
    assert await keys_stored_before(storage, soon() - timedelta(hours=1)) == set()


async def test_concurrent_writes_of_one_file_leave_one_of_them(storage: MediaStorage) -> None:
    key, versions = new_id(), [bytes([number]) * 50_000 for number in range(8)]

    await asyncio.gather(*(storage.put(key, 160, data) for data in versions))

    assert await storage.get(key, 160) in versions


# Directory


async def test_directory_without_permission_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageMisconfigured, match="MARKETHALL_MEDIA_DIRECTORY: cannot store"):
        await DirectoryStorage(tmp_path / "file" / "media").open()


async def test_application_does_not_start_without_directory(
    tmp_path: Path, database_url: str
) -> None:
    (tmp_path / "file").write_text("")
    settings = read_settings(
        database_url=database_url, data_dir=tmp_path, media_directory=tmp_path / "file"
    )

    with pytest.raises(SettingsError, match="MARKETHALL_MEDIA_DIRECTORY"):
        async with create_app(settings).lifespan():
            pass


async def test_directory_has_no_incomplete_files(tmp_path: Path) -> None:
    storage, key = DirectoryStorage(tmp_path), new_id()
    await storage.put(key, 160, b"file")
    folder = tmp_path / key.hex[-2:] / str(key)
    # a directory in the place of the file makes the last step of the write fail
    (folder / "320.webp").mkdir()

    with pytest.raises(Unavailable):
        await storage.put(key, 320, b"file")

    assert sorted(path.name for path in folder.iterdir()) == ["160.webp", "320.webp"]
    await storage.close()


async def test_other_files_in_the_directory_are_ignored(tmp_path: Path) -> None:
    storage, key = DirectoryStorage(tmp_path), new_id()
    await storage.put(key, 160, b"file")
    (tmp_path / "README").write_text("")
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "lost+found" / "file").write_text("")

    assert await keys_stored_before(storage, soon()) == {key}
    await storage.close()


async def test_directory_of_another_program_is_not_read(tmp_path: Path) -> None:
    """Files of the other program have no storage key, and the directory may not be readable."""
    storage, key = DirectoryStorage(tmp_path), new_id()
    await storage.put(key, 160, b"file")
    path = tmp_path / key.hex[-2:] / str(key)
    for other in (
        tmp_path / "lost+found" / str(new_id()),
        tmp_path / "zz" / str(new_id()),
        path.parent / new_id().hex,
        path.parent / f"{{{key}}}",
    ):
        other.mkdir(parents=True)
        (other / "160.webp").write_text("")

    assert await keys_stored_before(storage, soon()) == {key}
    await storage.close()


async def test_keys_are_listed_while_a_file_is_renamed(tmp_path: Path) -> None:
    """A write renames its temporary file, which may happen after its folder was read."""
    storage, keys = DirectoryStorage(tmp_path), {new_id() for _ in range(3)}
    for key in keys:
        await storage.put(key, 160, b"file")
        # a dangling link: reading its properties fails, as for a file that was just renamed
        (tmp_path / key.hex[-2:] / str(key) / ".temporary").symlink_to("missing")

    assert await keys_stored_before(storage, soon()) == keys
    await storage.close()


async def test_empty_folder_of_a_failed_write_is_listed(tmp_path: Path) -> None:
    storage, key = DirectoryStorage(tmp_path), new_id()
    # an empty folder, which remains if the disk is full
    (tmp_path / key.hex[-2:] / str(key)).mkdir(parents=True)

    assert await keys_stored_before(storage, soon()) == {key}
    assert await keys_stored_before(storage, soon() - timedelta(hours=1)) == set()
    await storage.delete(key)
    assert await keys_stored_before(storage, soon()) == set()
    await storage.close()


async def test_closed_directory_is_unavailable(tmp_path: Path) -> None:
    storage = DirectoryStorage(tmp_path)
    await storage.close()

    with pytest.raises(Unavailable):
        await storage.get(new_id(), 160)


# S3


async def test_objects_have_the_prefix_and_signed_requests(server: S3Server) -> None:
    storage, key = S3Storage(bucket_of(server)), new_id()

    await storage.put(key, 160, b"file")

    assert list(server.objects) == [f"shop/media/{key}/160.webp"]
    other = S3Storage(replace(bucket_of(server), access_key_id="other"))
    with pytest.raises(Unavailable):
        await other.put(key, 160, b"file")


async def test_failing_service_is_unavailable(server: S3Server) -> None:
    storage, key = S3Storage(bucket_of(server)), new_id()
    await storage.put(key, 160, b"file")

    for failure in (403, 503):
        server.failure = failure
        with pytest.raises(Unavailable):
            await storage.get(key, 160)
        with pytest.raises(Unavailable):
            await storage.put(key, 160, b"file")
        with pytest.raises(Unavailable):
            await storage.delete(key)
        with pytest.raises(Unavailable):
            await keys_stored_before(storage, soon())


async def test_silent_service_is_unavailable_and_blocks_nothing(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_storage, "_TIMEOUT", timedelta(milliseconds=200))
    monkeypatch.setattr(s3_storage, "_RETRIES", 0)
    storage = S3Storage(bucket_of(server))
    server.is_silent = True
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    with pytest.raises(Unavailable):
        await storage.get(new_id(), 160)
    counting.cancel()

    assert turns > 10


async def test_start_does_not_need_the_service() -> None:
    bucket = S3Bucket(name=BUCKET, region="r", endpoint="http://127.0.0.1:1", access_key_id="a")

    await S3Storage(bucket).open()


async def test_other_objects_in_the_bucket_are_ignored(server: S3Server) -> None:
    storage = S3Storage(bucket_of(server))
    for name in ("README", f"{new_id()}", f"{new_id()}/notes.txt", f"{new_id().hex}/160.webp"):
        server.objects[f"shop/media/{name}"] = b"", datetime.now(UTC)

    assert await keys_stored_before(storage, soon()) == set()


# Settings


def inventory_settings(**given: str) -> InventorySettings:
    return read_one(InventorySettings, given)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"media_storage": "s3"}, "MARKETHALL_MEDIA_S3_BUCKET: is required"),
        ({"media_s3_access_key_id": "a"}, "MARKETHALL_MEDIA_S3_ACCESS_KEY_ID: needs"),
        ({"media_s3_secret_access_key": "a"}, "MARKETHALL_MEDIA_S3_ACCESS_KEY_ID: needs"),
        ({"media_storage": "ftp"}, "MARKETHALL_MEDIA_STORAGE"),
        ({"media_s3_bucket": "UPPER"}, "MARKETHALL_MEDIA_S3_BUCKET"),
        ({"media_s3_prefix": "../other"}, "MARKETHALL_MEDIA_S3_PREFIX"),
        ({"media_s3_endpoint": "s3.example"}, "MARKETHALL_MEDIA_S3_ENDPOINT"),
        ({"media_s3_endpoint": "https://user@s3.example"}, "MARKETHALL_MEDIA_S3_ENDPOINT"),
        ({"media_max_pixels": "1"}, "MARKETHALL_MEDIA_MAX_PIXELS"),
        ({"max_media_bytes": "1"}, "MARKETHALL_MAX_MEDIA_BYTES"),
    ],
)
def test_invalid_settings_are_one_line(given: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError) as error:
        inventory_settings(**given)

    assert len(error.value.lines) == 1
    assert error.value.lines[0].startswith(problem)


def test_secrets_of_the_bucket_are_hidden() -> None:
    settings = inventory_settings(
        media_storage="s3",
        media_s3_bucket=BUCKET,
        media_s3_access_key_id="an id",
        media_s3_secret_access_key="hidden",
        media_s3_endpoint="https://s3.example/",
    )

    assert settings.media_bucket.endpoint == "https://s3.example"
    assert settings.media_bucket.secret_access_key == "hidden"
    assert "hidden" not in repr(settings) + repr(settings.media_bucket)
