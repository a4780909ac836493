"""Keys to compare names without regard to letter case and the Unicode form."""

from unicodedata import normalize


def to_lookup_key(text: str) -> str:
    """Normalize a name, so that comparisons ignore letter case and the Unicode form.

    NFKC is applied again after case folding, because the folded text may not be in NFKC (Unicode
    Standard, section 3.13).
    """
    return normalize("NFKC", normalize("NFKC", text).casefold())
