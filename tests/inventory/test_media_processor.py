"""Test the processes that decode images: their limits, and their unexpected ends."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from markethall.inventory.media.contract import ImageRefused
from markethall.inventory.media.gateway import image_processor
from markethall.inventory.media.gateway.image_processor import SubprocessImageProcessor
from markethall.shared.kernel.errors import Overloaded
from tests.inventory.image_files import HOSTILE_FILES, MAX_PIXELS, png

ROOT = Path(__file__).parent.parent.parent
# files that would take much memory if they were decoded
BOMBS = [name for name in HOSTILE_FILES if "bomb" in name or "huge" in name or "compressed" in name]
MAX_BOMB_MEGABYTES = 150
# prints the peak memory in MB of the processes that decode the files
_MEASURE = """
import asyncio, json, resource, sys
from markethall.inventory.media.contract import ImageRefused
from markethall.inventory.media.gateway.image_processor import SubprocessImageProcessor
from tests.inventory.image_files import HOSTILE_FILES, MAX_PIXELS

async def main():
    processor, reasons = SubprocessImageProcessor(MAX_PIXELS), {}
    for name in sys.argv[1:]:
        try:
            await processor.process(HOSTILE_FILES[name][1]())
        except ImageRefused as error:
            reasons[name] = error.details["reason"]
    print(json.dumps([reasons, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))

asyncio.run(main())
"""


@pytest.fixture
async def processor() -> AsyncIterator[SubprocessImageProcessor]:
    processor = SubprocessImageProcessor(MAX_PIXELS)
    yield processor
    await processor.close()


@pytest.fixture
def broken(
    processor: SubprocessImageProcessor, monkeypatch: pytest.MonkeyPatch
) -> SubprocessImageProcessor:
    monkeypatch.setattr(image_processor, "_MODULE", "tests.inventory.broken_decoder")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return processor


async def test_image_is_processed(processor: SubprocessImageProcessor) -> None:
    image = await processor.process(png(200, 100))

    assert (image.width, image.height) == (200, 100)
    assert [(width, file[8:12]) for width, file in image.files.items()] == [
        (160, b"WEBP"),
        (200, b"WEBP"),
    ]


async def test_hostile_file_is_refused(processor: SubprocessImageProcessor) -> None:
    with pytest.raises(ImageRefused) as error:
        await processor.process(b"<svg/>")

    assert error.value.details == {"reason": "unsupported_format"}
    assert "JPEG, PNG, WebP or GIF" in error.value.detail


def test_bombs_take_little_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *BOMBS],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    reasons, megabytes = json.loads(done.stdout)

    assert reasons == {name: HOSTILE_FILES[name][0] for name in BOMBS}
    assert megabytes < MAX_BOMB_MEGABYTES


async def test_crash_of_the_decoder_refuses_the_file(broken: SubprocessImageProcessor) -> None:
    with capture_logs() as lines, pytest.raises(ImageRefused) as error:
        await broken.process(b"crash")

    assert error.value.details == {"reason": "damaged"}
    assert [(line["event"], line["status"]) for line in lines] == [("media.decoder_failed", -11)]


@pytest.mark.parametrize("end", ["kill", "exception", "environment"])
async def test_other_ends_of_the_decoder_are_an_overload(
    broken: SubprocessImageProcessor, end: str
) -> None:
    with capture_logs() as lines, pytest.raises(Overloaded):
        await broken.process(end.encode())

    assert [line["event"] for line in lines] == ["media.decoder_failed"]


async def test_decoder_that_hangs_is_killed(
    broken: SubprocessImageProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_processor, "_TIMEOUT_SECONDS", 0.5)

    with capture_logs() as lines, pytest.raises(Overloaded):
        await broken.process(b"hang")

    assert [line["event"] for line in lines] == ["media.decoder_failed"]


async def test_decoder_has_no_settings(
    broken: SubprocessImageProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKETHALL_SECRET_KEY", "secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    with capture_logs() as lines, pytest.raises(Overloaded):
        await broken.process(b"environment")

    (line,) = lines
    assert "PYTHONPATH" in line["error"]
    assert "SECRET" not in line["error"]


async def test_memory_of_the_decoder_is_limited(
    processor: SubprocessImageProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is too low for the interpreter. The process fails, and the server continues."""
    monkeypatch.setattr(image_processor, "_BASE_MEMORY_BYTES", 0)
    monkeypatch.setattr(image_processor, "_MEMORY_BYTES_PER_PIXEL", 1)

    with pytest.raises(Overloaded):
        await processor.process(png(900, 900))


def test_lower_limits_of_the_server_remain() -> None:
    """The limits of the worker replace no lower limits that an operator has set.

    A process without privileges cannot raise them.
    """
    code = (
        "import resource, sys\n"
        "from markethall.inventory.media.gateway.image_worker import main\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (30, 30))\n"
        "main()\n"
        "sys.stderr.write(str(resource.getrlimit(resource.RLIMIT_CPU)))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, str(MAX_PIXELS), str(2**31), "40"],
        input=png(),
        capture_output=True,
        check=True,
    )

    assert json.loads(done.stdout.partition(b"\n")[0])["width"] == 64
    assert done.stderr == b"(30, 30)"


async def test_close_ends_running_and_waiting_work(
    broken: SubprocessImageProcessor, tmp_path: Path
) -> None:
    """Otherwise a server that ends would wait for the decoder for up to a minute."""
    started = tmp_path / "process id"
    work = [asyncio.create_task(broken.process(f"hang {started}".encode())) for _ in range(3)]
    while not (started.exists() and started.read_text()):
        await asyncio.sleep(0.01)

    await broken.close()

    # less than the timeout of the decoder
    results = await asyncio.wait_for(asyncio.gather(*work, return_exceptions=True), 30)
    assert [type(result) for result in results] == [Overloaded] * 3
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


async def test_waiting_images_are_limited(broken: SubprocessImageProcessor) -> None:
    results = await asyncio.gather(
        *(broken.process(b"kill") for _ in range(8)), return_exceptions=True
    )

    assert [type(result) for result in results] == [Overloaded] * 8
    # three images were refused because the queue was full; this error has its own Retry-After
    assert [result.retry_after for result in results if isinstance(result, Overloaded)].count(
        2
    ) == 3


async def test_closed_processor_is_overloaded(processor: SubprocessImageProcessor) -> None:
    await processor.close()

    with pytest.raises(Overloaded):
        await processor.process(png())
