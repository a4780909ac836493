import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from dotenv import dotenv_values
from pydantic_settings import BaseSettings, SettingsConfigDict

from markethall.contexts import context_names, topology
from markethall.settings.field_types import ContextName
from markethall.settings.process import Settings
from markethall.settings.validation import misspelled_variables
from markethall.shared.composition.settings import ContextSettings, SettingsError, read_one


def read_settings(**overrides: Any) -> Settings:
    """Read the settings of the process and of the contexts that it serves.

    `overrides` take precedence over the environment. Raises SettingsError with all problems.
    """
    problems = misspelled_variables(os.environ, _settings_names())
    settings: Settings | None = None
    by_context: dict[str, ContextSettings] = {}
    try:
        settings = read_one(Settings, overrides)
    except SettingsError as error:
        problems += error.lines
    for context in sorted(settings.contexts) if settings else context_names():
        try:
            by_context[context] = read_one(topology().contexts[context].settings, overrides)
            by_context[context].read_extensions(overrides)
        except SettingsError as error:
            problems += error.lines
    if problems or settings is None:
        # duplicates are removed, because several classes may read the same invalid variable
        raise SettingsError(list(dict.fromkeys(problems)))
    settings.by_context.update(by_context)
    return settings


def _settings_names() -> set[str]:
    """Return the names of the settings of the process and of all installed contexts."""
    classes: list[type[BaseSettings]] = [
        Settings,
        *(each for manifest in topology().manifests for each in manifest.settings_classes),
    ]
    return {name for settings_class in classes for name in settings_class.model_fields}


_PREFIX: Final = "MARKETHALL_"
_DEFAULT_ENV_FILE: Final = ".env"


def load_environment_files() -> None:
    """Add the variables of the env file and of the secrets directory to the environment.

    MARKETHALL_ENV_FILE is the path of the env file. The default is `.env` in the working directory,
    if this file exists. It has a line `NAME=value` for each variable. MARKETHALL_SECRETS_DIR is a
    directory with a file for each variable. The name of the file, in upper or lower case, is the
    name of the variable, and its content is the value. The environment takes precedence over the
    secrets, and the secrets over the env file. Only variables whose names begin with MARKETHALL_
    are read. Raises SettingsError if a file cannot be read.
    """
    try:
        for name, value in {**_env_file_variables(), **_secret_files()}.items():
            os.environ.setdefault(name, value)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"MARKETHALL_ENV_FILE, MARKETHALL_SECRETS_DIR: {error}"]) from None


def _env_file_variables() -> Mapping[str, str]:
    path = Path(os.environ.get(f"{_PREFIX}ENV_FILE") or _DEFAULT_ENV_FILE)
    if not path.exists() and str(path) == _DEFAULT_ENV_FILE:
        return {}
    with path.open(encoding="utf-8") as file:  # dotenv ignores a missing file
        values = dotenv_values(stream=file, interpolate=False)
    return {name: value for name, value in values.items() if _is_setting(name) and value}


def _secret_files() -> Mapping[str, str]:
    folder = os.environ.get(f"{_PREFIX}SECRETS_DIR")
    return dict(_read_secrets(Path(folder))) if folder else {}


def _read_secrets(folder: Path) -> Iterator[tuple[str, str]]:
    for file in sorted(folder.iterdir()):
        # skips the entries of a mounted Secret whose names begin with two dots, which Kubernetes
        # creates
        if _is_setting(file.name.upper()) and file.is_file():
            yield file.name.upper(), file.read_text(encoding="utf-8").removesuffix("\n")


def _is_setting(name: str) -> bool:
    return name.startswith(_PREFIX)


class MigrationSettings(BaseSettings):
    """The settings that migrations need. Alembic may run where the other settings are not set."""

    model_config = SettingsConfigDict(env_prefix="MARKETHALL_", extra="ignore")

    database_url: str = ""
    database_urls: dict[ContextName, str] = {}
    database_direct_url: str = ""
    database_direct_urls: dict[ContextName, str] = {}

    def database_url_of(self, context: str) -> str:
        """Return the URL of the context's database. Raises SettingsError if there is none."""
        url = (
            self.database_direct_urls.get(context)
            or self.database_direct_url
            or self.database_urls.get(context)
            or self.database_url
        )
        if not url:
            raise SettingsError(["MARKETHALL_DATABASE_URL: say which database to migrate"])
        return url
