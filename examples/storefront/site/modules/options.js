// Chooses a product of a family by its options.

/** Return the product with this SKU, or the first one that is available, or the first one. */
export function initialProduct(products, sku) {
  const named = products.find((product) => product.sku === sku);
  return named ?? products.find(isAvailable) ?? products[0];
}

/**
 * Return the product that has the value, and most of the other options of the current product.
 * Among equals, an available one is preferred.
 */
export function chosenProduct(products, current, option, value) {
  const candidates = products.filter((product) => product.options[option] === value);
  const score = (product) => 2 * commonOptions(product, current) + (isAvailable(product) ? 1 : 0);
  return candidates.reduce((best, product) => (score(product) > score(best) ? product : best), candidates[0]);
}

/** Tell whether the options of the family are different for each product. */
export function areDistinct(products, options) {
  const keys = products.map((product) => JSON.stringify(options.map(({ name }) => product.options[name] ?? null)));
  return new Set(keys).size === keys.length;
}

/** Tell whether a customer can order it: `available` counts units that can be back-ordered, too. */
export function isAvailable(product) {
  return product.available > 0;
}

function commonOptions(product, other) {
  return Object.entries(other.options).filter(([name, value]) => product.options[name] === value).length;
}
