"""Runs a process for each uploaded image, which decodes it and encodes its sizes.

A malicious file may crash the decoder or make it allocate much memory. The process has limits of
memory and time. It has no secrets, because its environment contains no settings. An encoder also
holds the interpreter lock for 0.2 s for a large image, which would delay all requests of the
server.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from markethall.inventory.media.contract import ImageProblem
from markethall.inventory.media.domain import ProcessedImage, refused
from markethall.shared.kernel.errors import Overloaded

log = structlog.get_logger("markethall.media")

_MODULE: Final = "markethall.inventory.media.gateway.image_worker"
_MAX_WAITING: Final = 4
_TIMEOUT_SECONDS: Final = 60
_MAX_CPU_SECONDS: Final = 40
# the address space of the interpreter and the libraries
_BASE_MEMORY_BYTES: Final = 700 * 1024 * 1024
# decoded pixels, a scaled or turned copy, and the buffers of the encoder
_MEMORY_BYTES_PER_PIXEL: Final = 24
_PASSED_VARIABLES: Final = frozenset(
    {"HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"}
)
# the signals of a crash, which means that the file triggers a bug in a decoder
_CRASHES: Final = frozenset(
    {signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV}
)


class SubprocessImageProcessor:
    """Implements `ImageProcessor`. One process runs at a time."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="media-images")
        self._waiting = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    async def process(self, data: bytes) -> ProcessedImage:
        if self._waiting > _MAX_WAITING:
            raise Overloaded(retry_after=2)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._executor, self._process_in_child, data
            )
        except RuntimeError:  # the executor is shut down
            raise _process_ends() from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # `close` has cancelled the work in the executor, and the task of the request is not
            # cancelled
            raise _process_ends() from None
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        self._is_closed = True
        self._executor.shutdown(wait=False, cancel_futures=True)
        if self._child is not None:
            self._child.kill()

    def _process_in_child(self, data: bytes) -> ProcessedImage:
        """Raises ImageRefused, Overloaded."""
        try:
            with _start_child(self._max_pixels) as child:
                self._child = child
                try:
                    if self._is_closed:
                        child.kill()
                    output, errors = child.communicate(data, _TIMEOUT_SECONDS)
                finally:
                    # `kill` has no effect if the process has ended
                    child.kill()
                    self._child = None
        except (subprocess.TimeoutExpired, OSError) as error:
            log.warning("media.decoder_failed", error=repr(error)[:200])
            raise Overloaded(retry_after=10) from None
        if self._is_closed and child.returncode:
            raise _process_ends()
        if child.returncode:
            raise _failure(child.returncode, errors)
        return _read_result(output)


def _start_child(max_pixels: int) -> "subprocess.Popen[bytes]":
    """Raises OSError."""
    max_memory = _BASE_MEMORY_BYTES + _MEMORY_BYTES_PER_PIXEL * max_pixels
    limits = [str(limit) for limit in (max_pixels, max_memory, _MAX_CPU_SECONDS)]
    environment = {name: os.environ[name] for name in _PASSED_VARIABLES & os.environ.keys()}
    return subprocess.Popen(  # noqa: S603 # all arguments are constants and numbers
        [sys.executable, "-P", "-m", _MODULE, *limits],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


def _process_ends() -> Overloaded:
    return Overloaded("The process is ending.", retry_after=1)


def _failure(status: int, errors: bytes) -> Exception:
    error = errors.decode(errors="replace").strip()[-300:]
    log.warning("media.decoder_failed", status=status, error=error)
    if -status in _CRASHES:
        return refused(ImageProblem.DAMAGED, "The file cannot be decoded.")
    # for example, the kernel killed the process because the machine has too little memory
    return Overloaded(retry_after=10)


def _read_result(output: bytes) -> ProcessedImage:
    line, _, content = output.partition(b"\n")
    header: Mapping[str, Any] = json.loads(line)
    if "refused" in header:
        raise refused(ImageProblem(header["refused"]), header["message"])
    if "overloaded" in header:
        raise Overloaded(retry_after=5)
    files, position = {}, 0
    for width, size in header["sizes"]:
        files[width] = content[position : position + size]
        position += size
    return ProcessedImage(header["width"], header["height"], files)
