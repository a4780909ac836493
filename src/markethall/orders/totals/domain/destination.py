"""The place to which an order is sent."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Destination:
    """A place. `country` is an ISO 3166-1 alpha-2 code; None means that it is not known."""

    country: str | None = None
    region: str | None = None
    postal_code: str | None = None

    @property
    def region_key(self) -> str:
        """The region in capitals without its country: "NY" for "us-ny". Empty if there is none."""
        region = (self.region or "").strip().upper()
        return region.removeprefix(f"{self.country}-") if self.country else region

    @property
    def postal_key(self) -> str:
        """The normalized postal code, to compare prefixes. See `postal_key`."""
        return postal_key(self.postal_code or "")


def postal_key(text: str) -> str:
    """Return a postal code, or a prefix of one, in capitals and without spaces and hyphens."""
    return "".join(text.upper().replace("-", " ").split())
