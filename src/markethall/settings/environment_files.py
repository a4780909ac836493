"""Read variables from an env file and from a directory of secrets into the environment."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from dotenv import dotenv_values

from markethall.shared.composition.settings import SettingsError

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
