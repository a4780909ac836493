"""Settings from an env file and from a directory of secrets."""

import os
import re
from pathlib import Path

import pytest

from markethall.settings import load_environment_files
from markethall.shared.composition.settings import SettingsError

_ROOT = Path(__file__).parent.parent
_NAMES = ("LOG_LEVEL", "SECRET_KEY", "ISSUER")


@pytest.fixture(autouse=True)
def _restored_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*_NAMES, "ENV_FILE", "SECRETS_DIR"):
        # set first, so that monkeypatch removes the variable at the end, even if the test has set
        # it
        monkeypatch.setenv(f"MARKETHALL_{name}", "")
        monkeypatch.delenv(f"MARKETHALL_{name}")
    monkeypatch.chdir(tmp_path)


def loaded() -> dict[str, str]:
    load_environment_files()
    variables = (f"MARKETHALL_{name}" for name in _NAMES)
    return {name: os.environ[name] for name in variables if name in os.environ}


def test_nothing_is_read_without_files() -> None:
    assert loaded() == {}


def test_env_file_of_the_working_directory_is_read(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# a comment\nMARKETHALL_LOG_LEVEL=warning\nexport MARKETHALL_ISSUER='https://a.example'\n"
        "MARKETHALL_SECRET_KEY=\nOTHER_NAME=ignored\n"
    )

    assert loaded() == {
        "MARKETHALL_LOG_LEVEL": "warning",
        "MARKETHALL_ISSUER": "https://a.example",
    }
    assert "OTHER_NAME" not in os.environ


def test_dollar_signs_of_a_value_are_kept(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MARKETHALL_SECRET_KEY='a$b${HOME}'\n")

    assert loaded() == {"MARKETHALL_SECRET_KEY": "a$b${HOME}"}


def test_environment_precedes_secrets_and_these_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "markethall_secret_key").write_text("from a secret\n")
    (secrets / "MARKETHALL_ISSUER").write_text("https://secret.example")
    (secrets / "..data").mkdir()
    (tmp_path / "local.env").write_text(
        "MARKETHALL_SECRET_KEY=from the file\nMARKETHALL_LOG_LEVEL=error\n"
    )
    monkeypatch.setenv("MARKETHALL_ENV_FILE", "local.env")
    monkeypatch.setenv("MARKETHALL_SECRETS_DIR", str(secrets))
    monkeypatch.setenv("MARKETHALL_ISSUER", "https://environment.example")

    assert loaded() == {
        "MARKETHALL_SECRET_KEY": "from a secret",
        "MARKETHALL_LOG_LEVEL": "error",
        "MARKETHALL_ISSUER": "https://environment.example",
    }


@pytest.mark.parametrize("variable", ["ENV_FILE", "SECRETS_DIR"])
def test_missing_file_is_an_error(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"MARKETHALL_{variable}", "missing")

    with pytest.raises(SettingsError, match="missing"):
        load_environment_files()


def test_env_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"MARKETHALL_LOG_LEVEL=\xff\n")

    with pytest.raises(SettingsError, match="utf-8"):
        load_environment_files()


def test_example_names_only_documented_settings() -> None:
    names = re.findall(
        r"^(?:# )?(MARKETHALL_\w+)=", (_ROOT / ".env.example").read_text(), re.MULTILINE
    )
    documented = (_ROOT / "docs/configuration.md").read_text()

    assert names
    assert [name for name in names if f"`{name}`" not in documented] == []
