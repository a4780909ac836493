// Signs in, and moves the cart, the orders and the payments of the earlier guest to the user.
import { createClient, hasCode, read, shop, tokenStorage } from "./api.js";
import { currentBuyer, setBuyer } from "./buyer.js";
import { cartIdOf, createCart, forgetCart, readCart } from "./cart.js";
import { store, stored } from "./storage.js";
import { idempotencyKey, unwrap, WebTokenStorage } from "../markethall-client.js";

const STORAGE_KEY = "storefront.guest";
const guestTokens = new WebTokenStorage(localStorage, "storefront.guest-tokens");
const CLAIM_ENDED = ["users.bad_guest_token", "users.guest_already_claimed"];

/** Sign in. If this fails, such as with `users.bad_credentials`, the buyer stays the same. */
export async function signIn(username, password) {
  const [before, tokens] = [currentBuyer(), tokenStorage.load()];
  await shop.session.login(username, password);
  try {
    const user = await read("/users/me");
    if (before !== null && before.name === null) setGuestAside(before, tokens);
    setBuyer({ id: user.user_id, name: user.username });
  } catch (error) {
    tokenStorage.save(tokens);
    throw error;
  }
  await takeOverGuest();
}

/** Create an account, and sign in. */
export async function register(account) {
  await unwrap(shop.POST("/users", { params: { header: idempotencyKey() }, body: account }));
  await signIn(account.username, account.password);
}

/**
 * Give the signed-in user everything of the guest who used this browser before. Every step can be
 * repeated: after an error or a reload of the page, the next call continues.
 */
export async function takeOverGuest() {
  const guest = stored(STORAGE_KEY);
  if (guest === null) return;
  await mergeCart(guest);
  await claimOrders();
  store(STORAGE_KEY, null);
  guestTokens.save(null);
}

function setGuestAside(guest, tokens) {
  guestTokens.save(tokens);
  store(STORAGE_KEY, guest);
}

// This step is before the claim, because the claim ends the session of the guest, and moves carts
// only after its response.
async function mergeCart(guest) {
  const source = await readGuestCart(cartIdOf(guest));
  if (source?.status === "open" && source.lines.length > 0) {
    const own = await readCart();
    const target = own?.status === "open" ? own : await createCart();
    await unwrap(shop.POST("/carts/{cart_id}/merge", {
      params: { path: { cart_id: target.cart_id }, header: idempotencyKey() },
      body: { source_cart_id: source.cart_id, guest_token: guestTokens.load().access_token },
    }));
  }
  forgetCart(guest);
}

// the client of the guest renews the tokens if they have expired
async function readGuestCart(cartId) {
  if (cartId === null || guestTokens.load() === null) return null;
  try {
    return await unwrap(createClient({ tokenStorage: guestTokens }).GET("/carts/{cart_id}", { params: { path: { cart_id: cartId } } }));
  } catch (error) {
    if (hasCode(error, "auth.unauthenticated", "orders.cart_not_found")) return null;
    throw error;
  }
}

async function claimOrders() {
  const token = guestTokens.load()?.refresh_token;
  if (token === undefined) return;
  try {
    await unwrap(shop.POST("/users/me/claims", { params: { header: idempotencyKey() }, body: { guest_token: token } }));
  } catch (error) {
    if (!hasCode(error, ...CLAIM_ENDED)) throw error;
  }
}
