"""Secrets: from the settings, else generated once and kept in the data directory."""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from markethall.settings import SHORTEST_SECRET, BadSettings, Settings
from markethall.shared.tokens import generate_key, load_keys
from markethall.topology import Context


@dataclass(frozen=True)
class Secrets:
    """`secret` signs cursors and webhooks; the others are private keys (PEM).

    `signing_key` signs access tokens, `service_key` the calls of a remote neighbour. One that
    this process has no use for is empty.
    """

    secret: bytes = field(repr=False)
    signing_key: str = field(repr=False)
    service_key: str = field(default="", repr=False)


def read_keys(settings: Settings) -> Secrets:
    """Raises BadSettings when the signing key cannot be read."""
    try:
        keys = _read(settings)
    except OSError as error:
        words = error.strerror or type(error).__name__
        raise BadSettings([f"MARKETHALL_DATA_DIR: cannot keep the keys there: {words}"]) from None
    if len(keys.secret) < SHORTEST_SECRET:
        raise BadSettings([f"MARKETHALL_DATA_DIR: the secret in {settings.home} is damaged"])
    for name, key in (("SIGNING", keys.signing_key), ("SERVICE", keys.service_key)):
        _check(f"MARKETHALL_{name}_KEY", key)
    return keys


def _check(name: str, key: str) -> None:
    try:
        if key:
            load_keys(key)
    except ValueError as error:
        raise BadSettings([f"{name}: {error}"]) from None


def _read(settings: Settings) -> Secrets:
    folder = None if settings.storage == "memory" else settings.home / "keys"
    # who can ask users for the public keys needs none of its own
    signs = Context.USERS in settings.serve or Context.USERS not in settings.remotes
    calls = settings.calls_out or (settings.trusts_itself and settings.environment != "production")
    secret = settings.secret.get_secret_value() or _kept(folder, "secret", _new_secret)
    signing = settings.signing_key.get_secret_value()
    service = settings.service_key.get_secret_value()
    return Secrets(
        secret=secret.encode(),
        signing_key=signing or (_kept(folder, "signing.pem", generate_key) if signs else ""),
        service_key=service or (_kept(folder, "service.pem", generate_key) if calls else ""),
    )


def _new_secret() -> str:
    return secrets.token_urlsafe(48)


def _kept(folder: Path | None, name: str, make: Callable[[], str]) -> str:
    """Read it, or make it and keep it where only this user can read it."""
    if folder is None:
        return make()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / name
    if not path.exists():
        _write_once(path, make())
    return path.read_text()


def _write_once(path: Path, text: str) -> None:
    """Whole or not at all, and the first one wins when two processes start at once."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()
