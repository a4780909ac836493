"""Demo data: a small hand-written catalogue, and a generated catalogue of any size."""

from markethall.local.demo.generated_catalogue import (
    GeneratedCatalogue,
    create_categories,
    known_skus,
)
from markethall.local.demo.shop import fill

__all__ = ["GeneratedCatalogue", "create_categories", "fill", "known_skus"]
