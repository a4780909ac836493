"""Errors of products and families."""

from markethall.shared.kernel.errors import DomainError


class FamilyNotFound(DomainError):
    """The family has no active product. Details: family."""

    code = "inventory.family_not_found"
    status = 404
    title = "There is no such family"


class SkuTaken(DomainError):
    """Another product has this SKU. The comparison ignores letter case. Details: sku."""

    code = "inventory.sku_taken"
    status = 409
    title = "Another product has this SKU"
