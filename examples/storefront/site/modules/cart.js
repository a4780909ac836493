// The cart: kept in this browser, as an array of { product_id, slug, quantity }.
import { byId } from "./dom.js";

const STORAGE_KEY = "storefront.cart";
export const MAX_QUANTITY = 999;
export const MAX_LINES = 100;

/** Return the lines. Stored data that is no cart counts as an empty cart. */
export function cartLines() {
  try {
    const stored = JSON.parse(localStorage.getItem(STORAGE_KEY) ?? "[]");
    return Array.isArray(stored) ? stored.filter(isLine) : [];
  } catch {
    return [];
  }
}

/** Add units of a product. Returns false if the cart has too many different products already. */
export function addToCart(productId, slug, quantity) {
  const lines = cartLines();
  const known = lines.find((line) => line.product_id === productId);
  if (known === undefined && lines.length >= MAX_LINES) return false;
  if (known === undefined) lines.push({ product_id: productId, slug, quantity });
  else known.quantity = Math.min(known.quantity + quantity, MAX_QUANTITY);
  save(lines);
  return true;
}

/** Set the quantity of a product; 0 removes its line. */
export function setQuantity(productId, quantity) {
  const lines = cartLines().map((line) => (line.product_id === productId ? { ...line, quantity } : line));
  save(lines.filter((line) => line.quantity > 0));
}

export function emptyCart() {
  save([]);
}

/** Write the number of units into the navigation. */
export function showCartCount() {
  const units = cartLines().reduce((sum, line) => sum + line.quantity, 0);
  byId("cart-count").textContent = units > 0 ? `(${units})` : "";
}

function save(lines) {
  localStorage.setItem(STORAGE_KEY, JSON.stringify(lines));
  showCartCount();
}

function isLine(line) {
  const isQuantity = Number.isInteger(line?.quantity) && line.quantity > 0 && line.quantity <= MAX_QUANTITY;
  return isQuantity && typeof line.product_id === "string" && typeof line.slug === "string";
}
