"""The settings of the process, read from environment variables MARKETHALL_…"""

from markethall.settings.data_directory import ROOT_DATA_DIRECTORY
from markethall.settings.environment_files import load_environment_files
from markethall.settings.migrations import MigrationSettings
from markethall.settings.process import Settings
from markethall.settings.reading import read_settings

__all__ = [
    "ROOT_DATA_DIRECTORY",
    "MigrationSettings",
    "Settings",
    "load_environment_files",
    "read_settings",
]
