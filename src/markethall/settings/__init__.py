"""The settings of the process, read from environment variables MARKETHALL_…"""

from markethall.settings.data_directory import ROOT_DATA_DIRECTORY
from markethall.settings.process import Settings
from markethall.settings.reading import MigrationSettings, load_environment_files, read_settings

__all__ = [
    "ROOT_DATA_DIRECTORY",
    "MigrationSettings",
    "Settings",
    "load_environment_files",
    "read_settings",
]
