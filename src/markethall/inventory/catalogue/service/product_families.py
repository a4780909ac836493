from datetime import datetime

from markethall.inventory.catalogue.domain.families import (
    FamilyNames,
    candidates_of,
    create_implicit_families,
)
from markethall.inventory.catalogue.domain.text_keys import label_key
from markethall.inventory.catalogue.ports import Store
from markethall.shared.kernel.ids import new_id


async def get_or_create_family(store: Store, text: str, now: datetime) -> str:
    """Return the label of the family that the text names; create the family if it is missing.

    Call this after the lock of the category tree and before the lock of a product, as all
    transactions do, to avoid deadlocks.
    """
    names = await load_names(store, text)
    if (found := names.find(text)) is not None:
        return found
    # look the text up again under the lock, because a concurrent transaction may have created the
    # family
    await store.lock_family_names()
    names = await load_names(store, text)
    label = names.get_or_plan(text)
    if names.planned:
        taken = await store.list_taken_slugs(candidates_of([label]))
        await store.add_families(create_implicit_families([label], taken, now, new_id))
    return label


async def load_names(store: Store, text: str) -> FamilyNames:
    return FamilyNames(await store.list_family_names([label_key(text)]))
