"""The files of Swagger UI 5.35.0 (Apache 2.0, see LICENSE), so that /docs needs no other host."""

from functools import lru_cache
from pathlib import Path
from typing import Final

FILES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon-32x32.png": "image/png",
}


@lru_cache(maxsize=len(FILES))
def read(name: str) -> bytes:
    """Return the content of one of FILES."""
    return (Path(__file__).parent / name).read_bytes()
