"""Keys: made once, kept for their owner alone, the same for all who start at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from markethall.keys import Secrets, read_keys
from markethall.settings import BadSettings, Settings, read_settings
from markethall.shared.tokens import generate_key


def settings(folder: Path, **given: object) -> Settings:
    return read_settings(data_dir=folder, **given)


def test_keys_are_made_once_and_found_again(tmp_path: Path) -> None:
    first = read_keys(settings(tmp_path))
    second = read_keys(settings(tmp_path))

    assert first == second
    assert len(first.secret) >= 32
    assert "PRIVATE KEY" in first.signing_key


def test_only_their_owner_can_read_them(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        read_keys(settings(tmp_path / "home"))
    finally:
        os.umask(before)

    folder = tmp_path / "home" / "keys"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert sorted(path.name for path in folder.iterdir()) == ["secret", "signing.pem"]


def test_different_folders_have_different_keys(tmp_path: Path) -> None:
    one, other = read_keys(settings(tmp_path / "a")), read_keys(settings(tmp_path / "b"))

    assert one.secret != other.secret
    assert one.signing_key != other.signing_key


def test_what_is_set_is_taken_and_nothing_is_written(tmp_path: Path) -> None:
    secret, key = "0123456789abcdef-0123456789abcdef", generate_key()

    keys = read_keys(settings(tmp_path, secret=secret, signing_key=key))

    assert keys == Secrets(secret.encode(), key)
    assert list(tmp_path.iterdir()) == []


def test_in_memory_nothing_is_kept(tmp_path: Path) -> None:
    first = read_keys(settings(tmp_path, storage="memory"))
    second = read_keys(settings(tmp_path, storage="memory"))

    assert first.secret != second.secret
    assert list(tmp_path.iterdir()) == []


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    code = (
        "import sys; sys.stdin.read()\n"
        "from markethall.keys import read_keys\n"
        "from markethall.settings import read_settings\n"
        "keys = read_keys(read_settings())\n"
        "print(keys.secret, keys.signing_key)\n"
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
    told = set()
    for process in started:
        assert process.stdout
        told.add(process.stdout.read())
        process.stdout.close()
        assert process.wait() == 0

    assert len(told) == 1
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["secret", "signing.pem"]


@pytest.mark.parametrize("key", ["nonsense", "-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_a_signing_key_that_is_none_is_one_line_that_does_not_repeat_it(
    tmp_path: Path, key: str
) -> None:
    with pytest.raises(BadSettings) as refused:
        read_keys(settings(tmp_path, signing_key=key))

    (line,) = refused.value.lines
    assert line.startswith("MARKETHALL_SIGNING_KEY: is not a private key")
    assert key not in line


def test_a_secret_that_was_damaged_is_not_signed_with(tmp_path: Path) -> None:
    read_keys(settings(tmp_path))
    (tmp_path / "keys" / "secret").write_text("")

    with pytest.raises(BadSettings, match="damaged"):
        read_keys(settings(tmp_path))


def test_a_folder_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(BadSettings, match="MARKETHALL_DATA_DIR"):
        read_keys(settings(tmp_path / "file"))


def test_secrets_do_not_show_themselves(tmp_path: Path) -> None:
    keys = read_keys(settings(tmp_path))

    assert keys.secret.decode() not in repr(keys)
    assert "PRIVATE" not in repr(keys)
