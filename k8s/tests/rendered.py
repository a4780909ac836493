"""The overlays as `kubectl kustomize` renders them."""

import copy
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
OVERLAYS = ("monolith", "relocation", "split")

Document = dict[str, Any]


@cache
def rendered(folder: str) -> str:
    kubectl = shutil.which("kubectl")
    assert kubectl, "kubectl must be on PATH: these tests render the overlays as a deployment would"
    command = [kubectl, "kustomize", str(REPOSITORY / "k8s" / folder)]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


@cache
def parsed(overlay: str) -> list[Document]:
    return list(yaml.safe_load_all(rendered(f"overlays/{overlay}")))


def relocation_job() -> Document:
    """Return the Job that relocates the data of inventory to another database."""
    (job,) = yaml.safe_load_all(rendered("jobs/relocate"))
    return dict(job)


def found(overlay: str, kind: str, name: str = "markethall") -> Document:
    """Return one object. The name of a generated ConfigMap is given without its hash."""
    (document,) = [each for each in parsed(overlay) if is_named(each, f"{kind}/{name}")]
    return document


def is_named(document: Document, title: str) -> bool:
    name = document["metadata"]["name"]
    if document["kind"] == "ConfigMap":
        name = name.rpartition("-")[0]
    return f"{document['kind']}/{name}" == title


def changed(overlay: str, changes: dict[str, dict[str, Any] | None]) -> list[Document]:
    """Return a copy of the overlay with changes in the form of invalid_manifests.yaml."""
    documents = copy.deepcopy(parsed(overlay))
    for title, fields in changes.items():
        (document,) = [each for each in documents if is_named(each, title)]
        if fields is None:
            documents.remove(document)
        for pointer, value in (fields or {}).items():
            change(document, pointer, value)
    return documents


def change(node: Any, pointer: str, value: Any) -> None:
    """Set the field at the JSON pointer, or remove it if the value is None."""
    *parents, last = [step.replace("~1", "/") for step in pointer.split("/")]
    for step in parents:
        node = node[_index(node, step)] if isinstance(node, list) else node[step]
    if last == "-":
        node.append(value)
    elif value is None:
        del node[_index(node, last) if isinstance(node, list) else last]
    else:
        node[last] = value


def _index(items: list[Any], step: str) -> int:
    """Return the index of an item; `step` is the index itself or the name of the item."""
    return int(step) if step.isdigit() else [item["name"] for item in items].index(step)
