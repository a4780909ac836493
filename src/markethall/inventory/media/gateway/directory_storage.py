import asyncio
import math
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID, uuid4

from markethall.inventory.media.ports import StorageMisconfigured
from markethall.shared.kernel.errors import Unavailable

T = TypeVar("T")

_THREADS: Final = 4
_KEYS_PER_PART: Final = 500
_FOLDER_NAME: Final = re.compile(r"[0-9a-f]{2}")


class DirectoryStorage:
    """Implements `MediaStorage`. The path of a file is `<2 digits>/<storage key>/<width>.webp`.

    The two digits are the last two of the key, which divides the files into 256 directories. All
    processes that serve inventory must use the same directory.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="media-files")

    async def open(self) -> None:
        try:
            await self._run(self._check_writable)
        except Unavailable as error:
            raise StorageMisconfigured(
                f"MARKETHALL_MEDIA_DIRECTORY: cannot store images in {self._directory}: "
                f"{error.details['reason']}"
            ) from None

    async def put(self, key: UUID, width: int, data: bytes) -> None:
        await self._run(lambda: self._write(self._path_of(key) / f"{width}.webp", data))

    async def get(self, key: UUID, width: int) -> bytes | None:
        return await self._run(lambda: _read(self._path_of(key) / f"{width}.webp"))

    async def delete(self, key: UUID) -> None:
        await self._run(lambda: _remove_directory(self._path_of(key)))

    async def list_keys(self, before: datetime) -> AsyncIterator[Collection[UUID]]:
        keys = self._keys_stored_before(before.timestamp())
        while part := await self._run(lambda: list(islice(keys, _KEYS_PER_PART))):
            yield part

    async def close(self) -> None:
        self._executor.shutdown(wait=False)

    async def _run(self, work: Callable[[], T]) -> T:
        """Run the work in a thread. Raises Unavailable."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        except (OSError, RuntimeError) as error:  # RuntimeError: the executor is shut down
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise Unavailable(dependency="media storage", reason=reason, retry_after=1) from error

    def _path_of(self, key: UUID) -> Path:
        return self._directory / key.hex[-2:] / str(key)

    def _check_writable(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        probe = self._directory / f".{uuid4()}"
        probe.write_bytes(b"")
        probe.unlink()

    def _write(self, path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{uuid4()}")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        _sync_directories(path.parent, self._directory)

    def _keys_stored_before(self, timestamp: float) -> Iterator[UUID]:
        for folder in _entries(self._directory):
            # other folders may not be readable, such as lost+found
            if not _FOLDER_NAME.fullmatch(folder.name):
                continue
            for entry in _entries(folder):
                key = _key_of(entry)
                if key and self._path_of(key) == entry and _is_older_than(entry, timestamp):
                    yield key


def _sync_directories(folder: Path, root: Path) -> None:
    """Call fsync for the folder and for each folder above it, up to `root`."""
    while True:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if folder == root:
            return
        folder = folder.parent


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _remove_directory(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return


def _entries(folder: Path) -> list[Path]:
    """Return the entries. Return no entries if the folder is a file or was just deleted."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_older_than(folder: Path, timestamp: float) -> bool:
    """Tell whether a file in the folder, or the folder itself if it is empty, is older."""
    return any(_modified_at(path) < timestamp for path in _entries(folder) or [folder])


def _modified_at(path: Path) -> float:
    """Return a Unix time in seconds; infinity if the path was just renamed or deleted."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def _key_of(entry: Path) -> UUID | None:
    """Return the storage key. Return None for an entry that this class has not created."""
    try:
        return UUID(entry.name)
    except ValueError:
        return None
