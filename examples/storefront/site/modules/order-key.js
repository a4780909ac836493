// The idempotency key of an order. It survives a reload, so that a repeated click orders once.
import { store, stored } from "./storage.js";
import { newKey } from "../markethall-client.js";

const STORAGE_KEY = "storefront.order-key";

/**
 * Return the key for this version of the cart and this total. Another version or total gets another
 * key.
 */
export function orderKey(cart, total) {
  const request = JSON.stringify([cart.cart_id, cart.version, total]);
  const known = stored(STORAGE_KEY, sessionStorage);
  if (known?.request === request) return known.key;
  const key = newKey();
  store(STORAGE_KEY, { request, key }, sessionStorage);
  return key;
}

export function forgetOrderKey() {
  store(STORAGE_KEY, null, sessionStorage);
}
