// The returns of an order: their states, and the request for one.
import { hasCode } from "./api.js";
import { formatTime } from "./dates.js";
import { byId, element } from "./dom.js";
import { checkRequired } from "./forms.js";
import { clearMessage, markFields, markInput, showError, showErrorText, unmarkField } from "./messages.js";
import { formatMoney } from "./money.js";
import { orderShop } from "./order-client.js";
import { idempotencyKey, unwrap } from "../markethall-client.js";

const STATES = {
  requested: ["Requested", "We look at your request."],
  approved: ["Approved", "Please send it back."],
  rejected: ["Rejected", "We do not take this back."],
  received: ["Arrived", "We check what has arrived. Then you get your money back."],
  closed: ["Complete", ""],
  cancelled: ["Cancelled", ""],
};
const form = byId("return-form");
const message = byId("return-message");
form.addEventListener("input", (event) => unmarkField(event.target));

/** Draw the returns, the newest first, and the form. `changed()` is called after each change. */
export function drawReturns(order, returns, changed) {
  const names = new Map(order.lines.map(({ line_id: id, name }) => [id, name]));
  const returnable = order.lines.filter((line) => returnableUnits(line) > 0);
  byId("returns").hidden = returns.length === 0 && returnable.length === 0;
  byId("return-list").replaceChildren(...returns.toReversed().map((one) => returnItem(one, names, changed)));
  byId("return-request").hidden = returnable.length === 0;
  drawFormLines(returnable);
  form.onsubmit = (event) => request(event, order.order_id, changed);
}

function returnableUnits({ delivered, in_return: inReturn, returned }) {
  return delivered - inReturn - returned;
}

function returnItem(one, names, changed) {
  const [label, advice] = STATES[one.status] ?? [one.status, ""];
  const isOpen = ["requested", "approved"].includes(one.status);
  const units = one.lines.map(({ line_id: id, quantity }) => `${quantity} × ${names.get(id)}`).join(", ");
  return element("li", { class: "return" },
    element("p", {}, element("strong", {}, label), " ", formatTime(one.updated_at)),
    element("p", {}, units),
    element("p", { class: "hint" }, `Your reason: ${one.reason}`),
    element("p", {}, one.refund === null ? advice : refundText(one.refund)),
    isOpen ? element("button", { type: "button", class: "link", click: () => cancel(one, changed),
      "aria-label": `Cancel the return of ${units}` }, "Cancel the return") : null);
}

function refundText({ amount, refunded }) {
  const money = formatMoney(refunded ?? amount);
  return refunded === null ? `We refund ${money}.` : `We have refunded ${money}.`;
}

// If the lines are unchanged, the inputs are kept, with what the buyer has entered.
function drawFormLines(lines) {
  const key = JSON.stringify(lines.map((line) => [line.line_id, returnableUnits(line)]));
  if (form.dataset.lines === key) return;
  form.dataset.lines = key;
  byId("return-lines").replaceChildren(...lines.map((line) => formLine(line, lines.length === 1)));
}

function formLine(line, isOnly) {
  const [id, max] = [`return-${line.line_id}`, returnableUnits(line)];
  return element("li", { class: "return-line" },
    element("label", { for: id }, line.name, element("span", { class: "hint" }, ` of\u00a0${max}`)),
    element("input", { id, type: "number", min: 0, max, value: isOnly ? max : 0, inputmode: "numeric", "data-line": line.line_id }));
}

const quantityInputs = () => [...byId("return-lines").querySelectorAll("input")];

/** Mark the invalid quantities, and focus the first one. Returns true if all are valid. */
function checkQuantities() {
  const invalid = quantityInputs().filter((input) => !input.validity.valid);
  for (const input of invalid) markInput(input, `Enter a number from 0 to ${input.max}.`);
  invalid[0]?.focus();
  return invalid.length === 0;
}

function chosenLines() {
  return quantityInputs().map((input) => ({ line_id: input.dataset.line, quantity: input.valueAsNumber || 0 })).filter(({ quantity }) => quantity > 0);
}

async function request(event, orderId, changed) {
  event.preventDefault();
  const lines = chosenLines();
  clearMessage(message);
  if (!checkQuantities() || !checkRequired(form)) return;
  if (lines.length === 0) return showErrorText("Enter how many units you send back.", message);
  await run(form.querySelector("[type=submit]"), changed, async () => {
    const params = { path: { order_id: orderId }, header: idempotencyKey() };
    const body = { lines, reason: byId("return-reason").value.trim() };
    await unwrap(orderShop.POST("/orders/{order_id}/returns", { params, body }));
    byId("return-reason").value = "";
    byId("return-request").open = false;
  });
}

function cancel({ return_id: id }, changed) {
  clearMessage(message);
  return run(null, changed, () => unwrap(orderShop.POST("/returns/{return_id}/cancel", {
    params: { path: { return_id: id }, header: idempotencyKey() },
  })));
}

async function run(button, changed, action) {
  if (button?.disabled) return;
  button?.toggleAttribute("disabled", true);
  try {
    await action();
    await changed();
    byId("returns-title").focus();
  } catch (error) {
    await showProblem(error, changed);
  } finally {
    button?.toggleAttribute("disabled", false);
  }
}

async function showProblem(error, changed) {
  if (hasCode(error, "orders.too_much_to_return", "orders.invalid_transition")) {
    await changed();
    showErrorText("The return has changed meanwhile. Look at it, then try again.", message);
  } else if (markFields(form, error).length > 0 || form.querySelector("[aria-invalid]") === null) showError(error, message);
}
