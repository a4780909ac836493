// Sentences for the reasons why a cart cannot be ordered, and why a voucher cannot be used.

// the checkout has inputs for these fields, so the cart page does not report them
const ASKED_AT_CHECKOUT = ["/email", "/shipping_address", "/shipping_method"];

const MISSING = {
  "/email": "Enter your e-mail address.",
  "/shipping_address": "Enter the address.",
  "/lines": "The cart is empty.",
};

const VOUCHER_REASONS = {
  unknown: "There is no such voucher.",
  inactive: "This voucher cannot be used now.",
  not_started: "This voucher cannot be used yet.",
  ended: "This voucher has expired.",
};

const VOUCHER_CONDITIONS = {
  min_total: "The cart is too small for this voucher.",
  first_order: "This voucher is for first orders.",
  customer_ids: "This voucher is for other customers.",
  lines: "This voucher is for other products.",
  discount: "This voucher takes nothing off this cart.",
};

/** Return the field and the text of each reason why the cart cannot be ordered. */
export function problemsOf(cart) {
  return cart.readiness.map((problem) => ({ field: problem.field, text: problemText(problem, cart) }));
}

/** Return the sentences for the problems that the buyer cannot solve at the checkout. */
export function problemsOfContents(cart) {
  const own = problemsOf(cart).filter(({ field }) => !ASKED_AT_CHECKOUT.some((asked) => field.startsWith(asked)));
  return own.map(({ text }) => text);
}

/**
 * Return a sentence for an error of `PUT /carts/{cart_id}/voucher`, or null for any other error.
 */
export function voucherErrorText({ code, details }) {
  if (code === "orders.voucher_exhausted") return "This voucher is used up.";
  if (code !== "orders.voucher_invalid") return null;
  const text = VOUCHER_REASONS[details.reason] ?? VOUCHER_CONDITIONS[details.condition];
  return text ?? "This voucher cannot be used for this cart.";
}

function problemText({ code, field, message }, cart) {
  if (code === "missing") return MISSING[field] ?? message;
  const line = cart.lines[/^\/lines\/(\d+)\//.exec(field)?.[1]];
  if (code === "inventory.product_not_found") return `${line?.name ?? "A product"} is not sold any more.`;
  if (code === "inventory.out_of_stock" && line !== undefined) return stockText(line);
  if (field === "/voucher_code") return `The voucher ${cart.voucher_code} cannot be used for this cart.`;
  return message;
}

function stockText({ name, available, quantity }) {
  if (available === 0) return `${name} is sold out.`;
  return `${name}: ${available} left, ${quantity} in the cart.`;
}
