"""Demo data: a small hand-written shop, and a generated catalogue of any size."""

from markethall.local.demo.configuration import (
    VOUCHER_LINE,
    ConfigurationServices,
    fill_configuration,
)
from markethall.local.demo.generated_catalogue import (
    GeneratedCatalogue,
    create_categories,
    known_skus,
)
from markethall.local.demo.shop import fill

__all__ = [
    "VOUCHER_LINE",
    "ConfigurationServices",
    "GeneratedCatalogue",
    "create_categories",
    "fill",
    "fill_configuration",
    "known_skus",
]
