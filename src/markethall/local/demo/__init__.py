"""Demo data: a small hand-written shop, and a generated catalogue of any size."""
