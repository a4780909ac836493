"""Builds the OpenAPI document of the public API."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any, Final

from markethall.app import create_app
from markethall.contexts import BUILT_IN_CONTEXTS
from markethall.settings import read_settings

RECORDS: Final = Path(__file__).parents[1] / "docs" / "openapi"


def build_document() -> dict[str, Any]:
    """Return the document of the monolith with default settings.

    Settings in the environment are ignored, and so are contexts of other distributions.
    """
    with tempfile.TemporaryDirectory() as folder:
        inherited = {name: os.environ.pop(name) for name in _settings_in_environment()}
        try:
            settings = read_settings(
                contexts=",".join(manifest.name for manifest in BUILT_IN_CONTEXTS),
                storage="memory",
                data_dir=folder,
            )
            return create_app(settings).app.openapi()
        finally:
            os.environ.update(inherited)


def _settings_in_environment() -> list[str]:
    return [name for name in os.environ if name.startswith("MARKETHALL_")]


def as_text(document: dict[str, Any]) -> str:
    """Return the text of the file. Paths and fields keep the order of the code."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
