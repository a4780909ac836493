"""The settings that every context has, and readable messages for invalid settings."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal, TypeVar, cast

from pydantic import BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as PydanticSettingsError

S = TypeVar("S", bound=BaseSettings)

_MAX_KEY_LENGTH: Final = 19

SETTINGS_CONFIG = SettingsConfigDict(
    env_prefix="MARKETHALL_",
    extra="ignore",
    frozen=True,
    hide_input_in_errors=True,
    allow_inf_nan=False,
)

Environment = Annotated[
    Literal["development", "production"],
    Field(description="production refuses generated secrets and development settings"),
]


def strip_newline(value: Any) -> Any:
    """Remove one newline at the end of a text: secrets from files and pipes often end with one."""
    return value.removesuffix("\n").removesuffix("\r") if isinstance(value, str) else value


def _parse_comma_list(value: Any) -> Any:
    """Accept `users,orders` as well as `["users", "orders"]`."""
    if isinstance(value, str) and not value.strip().startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("must be a comma list or a JSON array") from None
    return value


CommaList = BeforeValidator(_parse_comma_list)
MIN_SECRET_LENGTH: Final = 32


def validate_secret_strength(secret: SecretStr) -> SecretStr:
    """Return the secret. Raises ValueError if it is weak; an empty one means that it is not set."""
    text = secret.get_secret_value()
    if text and (len(text) < MIN_SECRET_LENGTH or len(set(text)) < MIN_SECRET_LENGTH // 4):
        raise ValueError(f"is too weak: at least {MIN_SECRET_LENGTH} random characters")
    return secret


Secret = Annotated[SecretStr, BeforeValidator(strip_newline)]
RateLimits = Annotated[
    Literal["on", "off"], Field(description="off: for benchmarks; refused in production")
]
Storage = Annotated[
    Literal["sql", "memory"],
    Field(description="memory: all data is lost at the end of the process"),
]


class SettingsError(Exception):
    """Invalid settings; `lines` has one readable line for each problem."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class ContextSettings(BaseSettings):
    """The settings that every context reads; a context adds its own in a subclass."""

    model_config = SETTINGS_CONFIG

    environment: Environment = "development"
    storage: Storage = "sql"
    idempotency_lease: float = Field(
        15, gt=0, description="Seconds before a retry may take over a crashed request"
    )

    _extensions: dict[type[BaseSettings], BaseSettings] = PrivateAttr(default_factory=dict)

    @property
    def extension_classes(self) -> Sequence[type[BaseSettings]]:
        """Return the settings classes of the extensions that these settings switch on."""
        return ()

    def read_extensions(self, overrides: Mapping[str, Any]) -> None:
        """Read the settings of the extensions. Raises SettingsError with all problems."""
        problems: list[str] = []
        for settings_class in self.extension_classes:
            try:
                self._extensions[settings_class] = read_one(settings_class, overrides)
            except SettingsError as error:
                problems += error.lines
        if problems:
            raise SettingsError(problems)

    def extension(self, settings_class: type[S]) -> S:
        """Return the settings of an extension. Reads them now if they were not read before."""
        if settings_class not in self._extensions:
            self._extensions[settings_class] = read_one(settings_class, {})
        return cast("S", self._extensions[settings_class])

    @property
    def streaming_body_limits(self) -> Mapping[str, int]:
        """Map each path whose route streams the body to the maximum size of the body in bytes."""
        return {}

    @property
    def lax_settings(self) -> Mapping[str, str]:
        """Map each risky setting to its effect. Production allows it, but it is rarely intended."""
        return {}

    @property
    def slow_provider_seconds(self) -> float:
        """Return the seconds that a request may wait for an external provider.

        The proxy of the local cluster waits for a response this much longer than the deadline.
        """
        return 0


def read_one(settings: Callable[..., S], overrides: Mapping[str, Any]) -> S:
    """Read settings. Overrides take precedence over the environment. Raises SettingsError."""
    try:
        return settings(**overrides)
    except ValidationError as error:
        raise SettingsError([_describe_error(item) for item in error.errors()]) from None
    except PydanticSettingsError as error:
        raise SettingsError([_describe_json_error(error)]) from None


def _describe_error(item: Any) -> str:
    name, *rest = item["loc"] or ("",)
    # show only short keys of letters and digits: a key in a JSON setting could be a URL with a
    # password
    parts = [part for part in map(str, rest) if part.isalnum() and len(part) <= _MAX_KEY_LENGTH]
    setting = f"MARKETHALL_{str(name).upper()}" + "".join(f"[{part}]" for part in parts)
    return f"{setting}: {item['msg'].removeprefix('Value error, ')}"


def _describe_json_error(error: PydanticSettingsError) -> str:
    """Return a message with the environment variable; pydantic-settings names only the field."""
    match = re.search(r'field "(\w+)"', str(error))
    name = f"MARKETHALL_{match[1].upper()}" if match else "a setting"
    return f"{name}: must be a JSON object or array"
