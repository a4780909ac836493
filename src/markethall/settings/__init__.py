"""The settings of the process, read from environment variables MARKETHALL_…"""

from markethall.settings.migrations import MigrationSettings
from markethall.settings.process import ROOT_DATA_DIRECTORY, Settings
from markethall.settings.reading import read_settings

__all__ = ["ROOT_DATA_DIRECTORY", "MigrationSettings", "Settings", "read_settings"]
