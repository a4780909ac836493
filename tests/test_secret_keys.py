"""Test secret keys: processes create them only once, and only their owner can read them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from markethall.secret_keys import ApplicationSecrets, load_or_create_secrets
from markethall.settings import Settings, read_settings
from markethall.shared.composition.settings import SettingsError
from markethall.shared.security.access_tokens import generate_private_key


def settings(folder: Path, **given: object) -> Settings:
    return read_settings(data_dir=folder, **given)


def test_secrets_are_created_once(tmp_path: Path) -> None:
    first = load_or_create_secrets(settings(tmp_path))
    second = load_or_create_secrets(settings(tmp_path))

    assert first == second
    assert len(first.secret_key) >= 32
    assert "PRIVATE KEY" in first.access_token_private_key


def test_secret_files_are_owner_readable(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load_or_create_secrets(settings(tmp_path / "home"))
    finally:
        os.umask(before)

    folder = tmp_path / "home" / "keys"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert sorted(path.name for path in folder.iterdir()) == ["secret", "signing.pem"]


def test_directories_have_different_secrets(tmp_path: Path) -> None:
    one, other = (
        load_or_create_secrets(settings(tmp_path / "a")),
        load_or_create_secrets(settings(tmp_path / "b")),
    )

    assert one.secret_key != other.secret_key
    assert one.access_token_private_key != other.access_token_private_key


def test_configured_secrets_are_not_written(tmp_path: Path) -> None:
    secret, key = "0123456789abcdef-0123456789abcdef", generate_private_key()

    keys = load_or_create_secrets(
        settings(tmp_path, secret_key=secret, access_token_private_key=key)
    )

    assert keys == ApplicationSecrets(secret.encode(), key.removesuffix("\n"))
    assert list(tmp_path.iterdir()) == []


def test_memory_mode_writes_no_secrets(tmp_path: Path) -> None:
    first = load_or_create_secrets(settings(tmp_path, storage="memory"))
    second = load_or_create_secrets(settings(tmp_path, storage="memory"))

    assert first.secret_key != second.secret_key
    assert list(tmp_path.iterdir()) == []


def test_concurrent_starts_agree_on_secrets(tmp_path: Path) -> None:
    code = (
        "import sys; sys.stdin.read()\n"
        "from markethall.secret_keys import load_or_create_secrets\n"
        "from markethall.settings import read_settings\n"
        "keys = load_or_create_secrets(read_settings())\n"
        "print(keys.secret_key, keys.access_token_private_key)\n"
    )
    environment = {"MARKETHALL_DATA_DIR": str(tmp_path), "PYTHONPATH": "src"}

    started = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(6)
    ]  # fmt: skip
    for process in started:
        assert process.stdin
        process.stdin.close()
    outputs = set()
    for process in started:
        assert process.stdout
        outputs.add(process.stdout.read())
        process.stdout.close()
        assert process.wait() == 0

    assert len(outputs) == 1
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["secret", "signing.pem"]


@pytest.mark.parametrize("key", ["nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_invalid_signing_key_is_reported_without_value(tmp_path: Path, key: str) -> None:
    with pytest.raises(SettingsError) as error:
        load_or_create_secrets(settings(tmp_path, access_token_private_key=key))

    (line,) = error.value.lines
    assert line.startswith("MARKETHALL_ACCESS_TOKEN_PRIVATE_KEY: is not a private key")
    assert key not in line


def test_damaged_secret_is_rejected(tmp_path: Path) -> None:
    load_or_create_secrets(settings(tmp_path))
    (tmp_path / "keys" / "secret").write_text("")

    with pytest.raises(SettingsError, match="damaged"):
        load_or_create_secrets(settings(tmp_path))


def test_invalid_data_directory_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(SettingsError, match="MARKETHALL_DATA_DIR"):
        load_or_create_secrets(settings(tmp_path / "file"))


def test_secrets_are_hidden_in_repr(tmp_path: Path) -> None:
    keys = load_or_create_secrets(settings(tmp_path))

    assert keys.secret_key.decode() not in repr(keys)
    assert "PRIVATE" not in repr(keys)
