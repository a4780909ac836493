// The parts of a total, of a cart or an order.
import { element } from "./dom.js";
import { formatMoney } from "./money.js";

/** Return a list of the parts, whose amounts add up to the total. */
export function totalsList(totals) {
  const rows = [
    ["Subtotal", formatMoney(totals.subtotal)],
    ...totals.discounts.map((discount) => [discountName(discount), formatMoney(negative(discount.amount))]),
    [shippingName(totals.shipping_line), formatMoney(totals.shipping)],
    ...totals.tax_lines.filter(({ included }) => !included).map((tax) => [taxName(tax), formatMoney(tax.amount)]),
  ];
  const included = totals.tax_lines.filter(({ included }) => included);
  return element("dl", { class: "sums" },
    ...rows.map(([name, amount]) => row(name, amount)),
    row("Total", formatMoney(totals.total), "grand-total"),
    ...included.map((tax) => row(`includes ${taxName(tax)}`, formatMoney(tax.amount), "hint")));
}

function row(name, amount, style = null) {
  return element("div", { class: style }, element("dt", {}, name), element("dd", {}, amount));
}

function negative({ amount, currency }) {
  return { amount: -amount, currency };
}

function discountName({ name, code }) {
  return code === null ? name : `${name} (${code})`;
}

function shippingName(line) {
  return line === null ? "Shipping" : `Shipping: ${line.name}`;
}

// the rate is a decimal text: 0.19 is 19 %
function taxName({ name, rate }) {
  return `${name} ${Number((Number(rate) * 100).toFixed(4))} %`;
}
