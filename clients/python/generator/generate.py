"""Generate `markethall_client.generated` from the OpenAPI document of the shop."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
OUTPUT: Final = HERE.parent / "src/markethall_client/generated"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("document", type=Path, help="the output of `markethall openapi`")
    generate(parser.parse_args().document)


def generate(document: Path) -> None:
    """Write the operations and models; a warning of the generator is an error."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        input_file = Path(folder) / "openapi.json"
        input_file.write_text(json.dumps(simplified(json.loads(document.read_text()))))
        run_generator(input_file)
    (OUTPUT / "operations.py").write_text(index_of_operations())


def simplified(part: Any) -> Any:
    """Return the part of the document without the keywords that the generator does not support.

    `oneOf` and `anyOf` beside `properties` only state which properties exclude each other. The
    generator would create a model for each alternative, without the properties. It would also omit
    the members of a map with `patternProperties`. Both rules are left out here, because the shop
    checks them. Media types of images are replaced, because the generator does not support them.
    """
    if isinstance(part, list):
        return [simplified(each) for each in part]
    if not isinstance(part, dict):
        return part
    part = {name: simplified(each) for name, each in part.items()}
    if isinstance(part.get("properties"), dict):
        part.pop("oneOf", None)
        part.pop("anyOf", None)
    if isinstance(part.get("content"), dict):
        part["content"] = dict(_known_type(*each) for each in part["content"].items())
    if "contentMediaType" in part:
        part["format"] = "binary"
    patterns = part.pop("patternProperties", None)
    if patterns is not None:
        (part["additionalProperties"],) = patterns.values()
    return part


def _known_type(media_type: str, body: Any) -> tuple[str, Any]:
    """Replace a binary media type that the generator does not support."""
    if media_type.startswith("image/") or media_type == "application/pdf":
        return "application/octet-stream", {"schema": {"type": "string", "format": "binary"}}
    return media_type, body


def run_generator(document: Path) -> None:
    commands = Path(sys.executable).parent
    command = [
        commands / "openapi-python-client",
        "generate",
        "--meta=none",
        "--fail-on-warning",
        f"--path={document}",
        f"--config={HERE / 'config.yml'}",
        f"--custom-template-path={HERE / 'templates'}",
        f"--output-path={OUTPUT}",
    ]
    # the generator runs ruff, which is installed in the same directory
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}"}
    subprocess.run(command, check=True, env=environment)


def index_of_operations() -> str:
    """Return the source of a module that imports the operations of all tags."""
    paths = sorted(path for path in OUTPUT.glob("api/*/*.py") if path.stem != "__init__")
    lines = ['"""All operations of the API, by `operationId`."""', ""]
    lines += [f"from .api.{path.parent.name}.{path.stem} import {path.stem}" for path in paths]
    lines += ["", "__all__ = [", *(f'    "{path.stem}",' for path in paths), "]", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
