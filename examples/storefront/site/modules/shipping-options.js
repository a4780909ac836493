// The shipping methods for the address and the lines of a cart.
import { read } from "./api.js";
import { byId, element } from "./dom.js";
import { formatMoney } from "./money.js";

/**
 * Draw the options as radio buttons, and check the option of the current total. A shop without
 * shipping methods has no options. If no method serves the address, the cart reports the reason.
 */
export async function drawShippingOptions(cart) {
  if (cart.shipping_address === null) return;
  const { items } = await read("/carts/{cart_id}/shipping-options", { path: { cart_id: cart.cart_id } });
  const chosen = cart.totals?.shipping_line?.code ?? cart.shipping_method;
  const focusedId = document.activeElement?.id;
  byId("shipping-options").replaceChildren(...items.map((option) => optionChoice(option, option.code === chosen)));
  byId("shipping").hidden = items.length === 0;
  if (focusedId) byId(focusedId)?.focus();
}

/** Return the code of the method that the buyer has chosen, or null. */
export function chosenShippingOption() {
  return document.querySelector("#shipping-options input:checked")?.value ?? null;
}

function optionChoice({ code, name, price, delivery }, isChosen) {
  const input = element("input", { type: "radio", name: "shipping", id: `shipping-${code}`, value: code, checked: isChosen });
  const texts = element("span", {}, name, delivery === null ? null : element("span", { class: "hint" }, ` ${delivery}`));
  const amount = element("span", { class: "price" }, price.amount === 0 ? "free" : formatMoney(price));
  return element("label", { class: "choice shipping-option" }, input, texts, amount);
}
