import os
from typing import Any

from pydantic_settings import BaseSettings

from markethall.contexts import context_names, topology
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
