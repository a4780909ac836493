// Reads the current products of the lines of the cart.
import { hasCode, read } from "./api.js";
import { cartLines } from "./cart.js";

/**
 * Return the lines with their products as the API has them now: { line, product }. A product that
 * does not exist any more is null.
 */
export function readCart() {
  return Promise.all(cartLines().map(async (line) => ({ line, product: await readProduct(line.product_id) })));
}

/** Return the total of the lines for each currency, in minor units. */
export function subtotals(contents) {
  const sums = new Map();
  for (const { line, product } of contents) {
    const { amount, currency } = product.price;
    sums.set(currency, (sums.get(currency) ?? 0) + amount * line.quantity);
  }
  return [...sums].map(([currency, amount]) => ({ amount, currency }));
}

async function readProduct(productId) {
  try {
    return await read("/products/{product_id}", { path: { product_id: productId } });
  } catch (error) {
    if (hasCode(error, "inventory.product_not_found") || hasCode(error, "request.invalid")) return null;
    throw error;
  }
}
