// The buyer: a guest, or a user who signs in.
import { shop } from "./api.js";
import { unwrap } from "../markethall-client.js";

const STORAGE_KEY = "storefront.buyer";

/** Return the name of the signed-in user, or null for a guest and for nobody. */
export async function signedInName() {
  return (await shop.session.isSignedIn()) ? localStorage.getItem(STORAGE_KEY) : null;
}

/** Sign in. Throws the problem `users.bad_credentials`. */
export async function signIn(username, password) {
  await shop.session.login(username, password);
  localStorage.setItem(STORAGE_KEY, username);
}

export async function signOut() {
  localStorage.removeItem(STORAGE_KEY);
  await shop.session.logout();
}

/** Create a guest, unless the browser has the tokens of a buyer already. */
export async function ensureGuest() {
  if (await shop.session.isSignedIn()) return;
  localStorage.removeItem(STORAGE_KEY);
  await shop.session.use(await unwrap(shop.POST("/guests")));
}
