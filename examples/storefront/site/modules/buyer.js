// The buyer: a guest, or a user who has signed in. The browser stores the tokens, the id and the name.
import { shop, tokenStorage } from "./api.js";
import { store, stored } from "./storage.js";
import { unwrap } from "../markethall-client.js";

const STORAGE_KEY = "storefront.buyer";

/** Return the buyer as { id, name }, or null. Guests have no name. */
export function currentBuyer() {
  const buyer = tokenStorage.load() === null ? null : stored(STORAGE_KEY);
  return typeof buyer?.id === "string" ? buyer : null;
}

/** Return the name of the signed-in user, or null for a guest or if there is no buyer. */
export function signedInName() {
  return currentBuyer()?.name ?? null;
}

export function setBuyer(buyer) {
  store(STORAGE_KEY, buyer);
}

/** Return the buyer. If there is none, create a guest. */
export async function ensureBuyer() {
  if (currentBuyer() === null) {
    const guest = await unwrap(shop.POST("/guests"));
    await shop.session.use(guest);
    setBuyer({ id: guest.guest_id, name: null });
  }
  return currentBuyer();
}

export async function signOut() {
  setBuyer(null);
  await shop.session.logout();
}
