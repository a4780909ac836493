"""The program of the process that decodes one image: `python -m` this module.

It reads the file from standard input. It writes one line of JSON and then the WebP files to
standard output. The arguments are the maximum number of pixels and the limits of memory in bytes
and of processor time in seconds.
"""

import json
import os
import resource
import sys
from typing import Final

from markethall.inventory.media.contract import ImageRefused
from markethall.inventory.media.gateway.image_codec import process_image
from markethall.shared.kernel.errors import Overloaded

# a lower priority than the processes of the server
_NICENESS: Final = 5


def main() -> None:
    max_pixels, max_memory_bytes, max_cpu_seconds = (int(text) for text in sys.argv[1:])
    os.nice(_NICENESS)
    _limit(resource.RLIMIT_AS, max_memory_bytes)
    _limit(resource.RLIMIT_CPU, max_cpu_seconds)
    _limit(resource.RLIMIT_CORE, 0)
    try:
        image = process_image(sys.stdin.buffer.read(), max_pixels)
    except ImageRefused as error:
        _write({"refused": error.details["reason"], "message": error.detail})
    except (Overloaded, MemoryError):
        _write({"overloaded": True})
    else:
        sizes = [(width, len(file)) for width, file in image.files.items()]
        header = {"width": image.width, "height": image.height, "sizes": sizes}
        _write(header, *image.files.values())


def _limit(kind: int, value: int) -> None:
    """Set a limit. Keep a hard limit that is lower, because a process may not raise it."""
    _, maximum = resource.getrlimit(kind)
    if maximum != resource.RLIM_INFINITY:
        value = min(value, maximum)
    resource.setrlimit(kind, (value, value))


def _write(header: dict[str, object], *files: bytes) -> None:
    for part in (json.dumps(header).encode() + b"\n", *files):
        sys.stdout.buffer.write(part)


if __name__ == "__main__":
    main()
