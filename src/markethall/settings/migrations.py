from pydantic_settings import BaseSettings, SettingsConfigDict

from markethall.settings.field_types import ContextName
from markethall.shared.composition.settings import SettingsError


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
