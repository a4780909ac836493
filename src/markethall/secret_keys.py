"""The secret keys: read from the settings, or generated once and stored in the data directory."""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from markethall.contexts import topology
from markethall.settings import Settings
from markethall.shared.composition.settings import (
    MIN_SECRET_LENGTH,
    SettingsError,
    strip_newline,
)
from markethall.shared.security.access_tokens import generate_private_key, load_private_keys


@dataclass(frozen=True)
class ApplicationSecrets:
    """The secret keys of a process. A key that the process does not need is empty.

    Keys for cursors, rate limits and webhooks of the sandbox provider are derived from
    `secret_key`. The others are Ed25519 private keys as PEM text.
    """

    secret_key: bytes = field(repr=False)
    access_token_private_key: str = field(repr=False)
    service_token_private_key: str = field(default="", repr=False)


def load_or_create_secrets(settings: Settings) -> ApplicationSecrets:
    """Return the keys. Raises SettingsError if a key is invalid or cannot be read or stored."""
    try:
        application_secrets = _read_secrets(settings)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SettingsError(
            [f"MARKETHALL_DATA_DIR: cannot keep the keys there: {reason}"]
        ) from None
    if len(application_secrets.secret_key) < MIN_SECRET_LENGTH:
        raise SettingsError(
            [f"MARKETHALL_DATA_DIR: the secret in {settings.data_directory} is damaged"]
        )
    for name, key in (
        ("ACCESS_TOKEN", application_secrets.access_token_private_key),
        ("SERVICE_TOKEN", application_secrets.service_token_private_key),
    ):
        _validate_private_key(f"MARKETHALL_{name}_PRIVATE_KEY", key)
    return application_secrets


def _validate_private_key(name: str, pem: str) -> None:
    try:
        if pem:
            load_private_keys(pem)
    except ValueError as error:
        raise SettingsError([f"{name}: {error}"]) from None


def _read_secrets(settings: Settings) -> ApplicationSecrets:
    directory = None if settings.storage == "memory" else settings.data_directory / "keys"
    # a process that fetches the public keys of the token issuer over HTTP needs no private key for
    # access tokens
    needs_access_token_key = (
        topology().token_issuer in settings.contexts
        or topology().token_issuer not in settings.context_urls
    )
    needs_service_token_key = (
        settings.has_remote_dependencies
        or settings.has_remote_subscribers
        or (settings.accepts_own_service_key and settings.environment != "production")
    )
    secret = settings.secret_key.get_secret_value() or _load_or_create(
        directory, "secret", lambda: secrets.token_urlsafe(48)
    )
    access_token_private_key = settings.access_token_private_key.get_secret_value()
    service_token_private_key = settings.service_token_private_key.get_secret_value()
    return ApplicationSecrets(
        secret_key=secret.encode(),
        access_token_private_key=access_token_private_key
        or (
            _load_or_create(directory, "signing.pem", generate_private_key)
            if needs_access_token_key
            else ""
        ),
        service_token_private_key=service_token_private_key
        or (
            _load_or_create(directory, "service.pem", generate_private_key)
            if needs_service_token_key
            else ""
        ),
    )


def _load_or_create(directory: Path | None, name: str, generate: Callable[[], str]) -> str:
    """Return the content of the file. A missing file is created, readable only by this user."""
    if directory is None:
        return generate()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / name
    if not path.exists():
        _create_exclusively(path, generate())
    return str(strip_newline(path.read_text()))


def _create_exclusively(path: Path, text: str) -> None:
    """Create the file with the text, but keep a file that another process has just created.

    A hard link is atomic, so no process can read an incomplete file.
    """
    temporary_path = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(
        os.open(temporary_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
    ) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary_path, path)
    except FileExistsError:
        return
    finally:
        temporary_path.unlink()
