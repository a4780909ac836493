"""Checks the repository for retired terms and duplicate class names, and how docstrings begin.

scripts/retired_words.txt has one retired term per line, with its replacement. Each finding is
printed as `path:line: message`. The exit code is 1 if there are findings.
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
WORD_LIST: Final = Path("scripts/retired_words.txt")
TEXT_SUFFIXES: Final = frozenset(
    {
        ".py",
        ".md",
        ".toml",
        ".yaml",
        ".yml",
        ".sh",
        ".txt",
        ".env",
        ".mako",
        ".ini",
        ".cfg",
        ".ts",
        "",
    }
)
# files that need the retired terms, and files of other authors
UNCHECKED: Final = (
    "scripts/check_names.py",
    "scripts/retired_words.txt",
    "tests/test_check_names.py",
    "requirements/",
    "LICENSE",
    "src/markethall/operations/swagger/",
    "src/markethall/shared/security/common_passwords/LICENSE",
    "docs/samples/",
)
# allowed uses: old names of metrics, the Unix user "nobody", words of the demo catalogue
ORDINARY_USES: Final = {
    "CHANGELOG.md": {"neighbour"},
    "src/markethall/local/postgres/os_user.py": {"nobody"},
    "src/markethall/local/demo/vocabulary.py": {"desk", "lane"},
}
RELATIVE_PRONOUNS: Final = frozenset(
    {"who", "whoever", "whose", "whom", "what", "whatever", "where", "wherever", "those", "which"}
)
# class names that may occur in every context or subdomain
LAYOUT_CLASSES: Final = frozenset({"ReadStore", "Services", "Store", "Stores", "Tables"})

_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_")


@dataclass(frozen=True)
class Finding:
    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


def read_retired_words(text: str) -> Mapping[str, str]:
    """Map each retired term, in lower case, to its replacement. Lines with `#` are comments."""
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {
        term.strip().lower(): new.strip() for term, _, new in (x.partition("->") for x in lines)
    }


def find_retired_words(path: str, text: str, retired: Mapping[str, str]) -> Iterator[Finding]:
    """Find retired terms as whole words, including the words of identifiers."""
    if not retired:
        return
    terms = "|".join(re.escape(term) for term in sorted(retired, key=len, reverse=True))
    pattern = re.compile(rf"(?<![a-z0-9])(?:{terms})(?![a-z0-9])")
    for number, line in enumerate(text.splitlines(), 1):
        for match in pattern.finditer(_CAMEL.sub(" ", line).lower()):
            term = match.group()
            if term in ORDINARY_USES.get(path, ()):
                continue
            yield Finding(path, number, f"retired word “{term}”, say: {retired[term]}")


def find_docstring_openings(path: str, text: str) -> Iterator[Finding]:
    """Find docstrings that begin with a relative pronoun instead of a verb or a noun."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, documented):
            continue
        docstring = ast.get_docstring(node)
        words = re.findall(r"[A-Za-z]+", docstring or "")
        if words and words[0].lower() in RELATIVE_PRONOUNS:
            line = node.body[0].lineno
            yield Finding(path, line, f"docstring begins with “{words[0]}”, not a verb or a noun")


def find_duplicate_classes(sources: Mapping[str, str]) -> Iterator[Finding]:
    """Find public classes whose name occurs in several modules, except LAYOUT_CLASSES."""
    places: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for path, text in sources.items():
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append((path, node.lineno))
    for name, found in sorted(places.items()):
        if name in LAYOUT_CLASSES:
            continue
        for path, line in found[1:]:
            yield Finding(path, line, f"class {name} is also defined in {found[0][0]}")


def check(files: Mapping[str, str], retired: Mapping[str, str]) -> list[Finding]:
    """Return all findings. `files` maps the path of each file to its text."""
    python = {path: text for path, text in files.items() if path.endswith(".py")}
    product = {path: text for path, text in python.items() if path.startswith("src/")}
    findings = [
        finding
        for path, text in files.items()
        for finding in find_retired_words(path, text, retired)
    ]
    for path, text in python.items():
        findings += find_docstring_openings(path, text)
    return findings + list(find_duplicate_classes(product))


def tracked_files() -> dict[str, str]:
    """Map the path of each text file that git tracks to its text."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    return {path: (ROOT / path).read_text() for path in _checked(listed) if (ROOT / path).exists()}


def _checked(paths: Iterable[str]) -> Iterator[str]:
    return (
        path
        for path in paths
        if Path(path).suffix in TEXT_SUFFIXES and not path.startswith(UNCHECKED)
    )


def main() -> int:
    retired = read_retired_words((ROOT / WORD_LIST).read_text())
    findings = check(tracked_files(), retired)
    for finding in findings:
        print(finding)
    print(f"names: {len(findings)} findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
