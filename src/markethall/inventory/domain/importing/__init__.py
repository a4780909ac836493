"""From the bytes of a file to products, by rule: no database, no clock, no network."""

from markethall.inventory.domain.importing.cells import HEADER, cells_of, csv_row
from markethall.inventory.domain.importing.drafts import Draft, Row, Step
from markethall.inventory.domain.importing.formats import Reader, opened
from markethall.inventory.domain.importing.jobs import (
    CREATED,
    FAILED,
    MOST_KEPT,
    UNCHANGED,
    UPDATED,
    Job,
)
from markethall.inventory.domain.importing.places import LONGEST, Flaw, Place, Unreadable
from markethall.inventory.domain.importing.records import Window

__all__ = [
    "CREATED",
    "FAILED",
    "HEADER",
    "LONGEST",
    "MOST_KEPT",
    "UNCHANGED",
    "UPDATED",
    "Draft",
    "Flaw",
    "Job",
    "Place",
    "Reader",
    "Row",
    "Step",
    "Unreadable",
    "Window",
    "cells_of",
    "csv_row",
    "opened",
]
