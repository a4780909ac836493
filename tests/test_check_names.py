"""Test that the check of names reports each kind of finding, and nothing else."""

import pytest

from scripts.check_names import check, read_retired_words, tracked_files

RETIRED = read_retired_words("# a comment\nhall -> application\nfront door -> gateway\n")


@pytest.mark.parametrize(
    "line",
    [
        "class HallServer: ...",
        "def open_the_hall() -> None: ...",
        "HALL_PORT = 1",
        "# The hall opens here.",
        "# Requests enter by the front door.",
    ],
)
def test_retired_word_is_found_in_names_and_in_text(line: str) -> None:
    (finding,) = check({"src/markethall/a.py": line}, RETIRED)

    assert finding.line == 1
    assert "retired word" in finding.message


@pytest.mark.parametrize("line", ["import markethall", "shallow = 1", "# hatchling builds it"])
def test_retired_word_inside_another_word_is_no_finding(line: str) -> None:
    assert check({"src/markethall/a.py": line}, RETIRED) == []


def test_retired_word_is_found_in_documents_too() -> None:
    (finding,) = check({"docs/a.md": "# Title\n\nThe hall opens."}, RETIRED)

    assert str(finding).startswith("docs/a.md:3: ")


@pytest.mark.parametrize("word", ["Who", "What", "Where", "Those", "Whoever", "Which"])
def test_docstring_that_begins_with_a_relative_pronoun_is_found(word: str) -> None:
    source = f'def read() -> None:\n    """{word} asks for it."""\n'

    (finding,) = check({"tests/a.py": source}, RETIRED)

    assert finding.line == 2
    assert word in finding.message


def test_docstring_that_begins_with_a_verb_is_no_finding() -> None:
    source = '"""Read the settings."""\n\n\nclass Reader:\n    """Reader of settings."""\n'

    assert check({"src/markethall/a.py": source}, RETIRED) == []


def test_class_name_used_in_two_modules_is_found() -> None:
    files = {"src/markethall/a.py": "class Line: ...", "src/markethall/b.py": "class Line: ..."}

    (finding,) = check(files, RETIRED)

    assert finding.message == "class Line is also defined in src/markethall/a.py"


def test_class_names_of_the_layout_may_repeat() -> None:
    files = {"src/markethall/a.py": "class Store: ...", "src/markethall/b.py": "class Store: ..."}

    assert check(files, RETIRED) == []


def test_private_and_test_classes_may_repeat() -> None:
    files = {
        "src/markethall/a.py": "class _Line: ...",
        "src/markethall/b.py": "class _Line: ...",
        "tests/a.py": "class Fake: ...",
        "tests/b.py": "class Fake: ...",
    }

    assert check(files, RETIRED) == []


def test_checked_files_are_those_of_the_repository() -> None:
    files = tracked_files()

    assert "src/markethall/settings/process.py" in files
    assert "README.md" in files
    assert "scripts/retired_words.txt" not in files
