// The cart of the buyer. The API stores the cart; the browser stores only its id.
import { hasCode, shop } from "./api.js";
import { currentBuyer, ensureBuyer } from "./buyer.js";
import { noteChanges } from "./cart-changes.js";
import { byId } from "./dom.js";
import { store, stored, withLock } from "./storage.js";
import { idempotencyKey, unwrap } from "../markethall-client.js";

const STORAGE_KEY = "storefront.carts";
export const MAX_QUANTITY = 999;
// the cart that the page shows, and its entity tag
let shown = null;

/** Return the id of the buyer's cart, or null. */
export function cartIdOf(buyer) {
  const id = buyer === null ? null : stored(STORAGE_KEY)?.[buyer.id];
  return typeof id === "string" ? id : null;
}

export function forgetCart(buyer = currentBuyer()) {
  const { [buyer?.id]: _, ...others } = stored(STORAGE_KEY) ?? {};
  store(STORAGE_KEY, others);
}

/**
 * Return the cart with current prices, or null if there is none. An ordered cart, which another tab
 * may have ordered, stays the buyer's cart until the next one is created.
 */
export async function readCart() {
  const id = cartIdOf(currentBuyer());
  if (id === null) return null;
  try {
    return await receive(shop.GET("/carts/{cart_id}", { params: { path: { cart_id: id } }, cache: "no-store" }));
  } catch (error) {
    if (!hasCode(error, "auth.unauthenticated", "orders.cart_not_found", "request.invalid")) throw error;
    forgetCart();
    return null;
  }
}

/** Create an empty cart. Throws problems, as all functions below. */
export async function createCart() {
  const call = () => shop.POST("/carts", { params: { header: idempotencyKey() }, body: { lines: [] } });
  await ensureBuyer();
  try {
    return await receive(call());
  } catch (error) {
    // the session has ended, and the client has deleted its tokens
    if (!hasCode(error, "auth.unauthenticated") || currentBuyer() !== null) throw error;
    await ensureBuyer();
    return receive(call());
  }
}

/** Add units of a product. Without a cart, create one. */
export function addUnits(productId, quantity) {
  return withLock("storefront.cart", async () => {
    const cart = await readCart();
    // Another tab sees the stored id of the new cart a moment later, and reads it when this lock ends.
    // The request that adds the units leaves time for that.
    if (cart?.status !== "open") await createCart();
    return changeCart((latest) => {
      const known = latest.cart.lines.find((line) => line.product_id === productId)?.quantity ?? 0;
      return putLine(latest, productId, Math.min(known + quantity, MAX_QUANTITY));
    });
  });
}

/** Set the quantity of a product; 0 removes its line. */
export function setQuantity(productId, quantity) {
  return changeCart((latest) => (quantity > 0 ? putLine(latest, productId, quantity) : deleteLine(latest, productId)));
}

/** Change fields of the cart, such as `email` and `shipping_address`. */
export function changeFields(fields) {
  return changeCart((latest) => shop.PUT("/carts/{cart_id}", { params: paramsOf(latest), body: fields }));
}

export function useVoucher(code) {
  return changeCart((latest) => shop.PUT("/carts/{cart_id}/voucher", { params: paramsOf(latest), body: { code } }));
}

export function removeVoucher() {
  return changeCart((latest) => shop.DELETE("/carts/{cart_id}/voucher", { params: paramsOf(latest) }));
}

/** Order the cart for this total. Repeated calls with the same key place one order. */
export function checkOut(total, key) {
  const { path, header } = paramsOf(shown);
  return unwrap(shop.POST("/carts/{cart_id}/checkout", {
    params: { path, header: { ...header, ...idempotencyKey(key) } },
    body: { expected_total: total },
  }));
}

/** Write the number of units into the navigation. The content of the page shows any failure. */
export async function showCartCount() {
  await readCart().catch(() => null);
  drawCount();
}

/**
 * Send a change with the entity tag of the cart that the page shows. If another tab has changed the
 * cart, read it and send the change once more. Returns the changed cart, or the closed cart if
 * another tab has ordered it.
 */
async function changeCart(send) {
  try {
    return await receive(send(shown));
  } catch (error) {
    if (!hasCode(error, "request.if_match_failed")) throw error;
    const cart = await readCart();
    return cart?.status === "open" ? receive(send(shown)) : cart;
  }
}

async function receive(call) {
  const { response } = await call;
  const cart = await unwrap(call);
  // a removal returns no cart
  if (response.status === 204) return readCart();
  shown = { cart, etag: response.headers.get("ETag") };
  store(STORAGE_KEY, { ...stored(STORAGE_KEY), [cart.user_id]: cart.cart_id });
  noteChanges(cart);
  drawCount();
  return cart;
}

function putLine(latest, productId, quantity) {
  return shop.PUT("/carts/{cart_id}/lines/{product_id}", { params: lineParams(latest, productId), body: { quantity } });
}

function deleteLine(latest, productId) {
  return shop.DELETE("/carts/{cart_id}/lines/{product_id}", { params: lineParams(latest, productId) });
}

function lineParams(latest, productId) {
  const { path, header } = paramsOf(latest);
  return { path: { ...path, product_id: productId }, header };
}

function paramsOf({ cart, etag }) {
  return { path: { cart_id: cart.cart_id }, header: { "If-Match": etag } };
}

function drawCount() {
  const isOpen = shown?.cart.status === "open" && cartIdOf(currentBuyer()) !== null;
  const units = isOpen ? shown.cart.lines.reduce((sum, line) => sum + line.quantity, 0) : 0;
  byId("cart-count").textContent = units > 0 ? `(${units})` : "";
}
