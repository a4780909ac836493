// The changes and the shipments of an order, in words.
import { formatTime } from "./dates.js";
import { byId, element } from "./dom.js";

const CHANGES = {
  placed: "You ordered.",
  claimed: "The order was added to an account.",
  paid: "Your payment arrived.",
  payment_authorized: "Your payment was authorized.",
  payment_captured: "Your payment was collected.",
  payment_partially_captured: "A part of your payment was collected.",
  payment_capture_failed: "Your payment could not be collected.",
  payment_failed: "A payment failed.",
  payment_cancelled: "The payment was cancelled.",
  payment_voided: "The authorization of the payment was cancelled.",
  payment_refunded: "Your payment was refunded.",
  payment_partially_refunded: "A part of your payment was refunded.",
  payment_disputed: "The payment is disputed.",
  late_payment: "A payment arrived too late.",
  revived: "The payment arrived late, and the order goes on.",
  deadline_extended: "There is more time to pay.",
  expired: "The order was not paid in time.",
  cancelled: "The order was cancelled.",
  lines_cancelled: "A part of the order was cancelled.",
  edited: "The order was changed.",
  shipping_address_changed: "The shipping address was changed.",
  put_on_hold: "The shipping was stopped.",
  taken_off_hold: "The shipping goes on.",
  fulfilled: "A shipment was sent.",
  delivered: "A shipment was delivered.",
  shipment_lost: "A shipment was lost.",
  shipment_returned: "A shipment came back.",
  completed: "The order is complete.",
  return_requested: "You asked to send something back.",
  return_approved: "The return was approved.",
  return_rejected: "The return was rejected.",
  return_cancelled: "The return was cancelled.",
  return_received: "The returned goods arrived.",
  return_closed: "The return is complete.",
};
const WITH_REASON = ["cancelled", "lines_cancelled", "return_rejected"];

const SHIPMENTS = {
  shipped: "On its way",
  delivered: "Delivered",
  lost: "Lost",
  returned_to_sender: "Came back to the sender",
};

/**
 * Draw the changes, the latest first. Changes by staff that do not concern the buyer are left out.
 */
export function drawTimeline(entries) {
  const shown = entries.filter(({ change }) => change !== "details_changed").reverse();
  byId("timeline").replaceChildren(...shown.map(({ change, at, reason, payment_status: payment }) => element("li", {},
    formatTime(at), element("span", {}, changeText(change, payment), WITH_REASON.includes(change) && reason ? ` “${reason}”` : null))));
}

/** Draw the shipments, with the names of their products from the lines of the order. */
export function drawShipments(fulfilments, lines) {
  const names = new Map(lines.map(({ line_id: id, name }) => [id, name]));
  byId("shipments").hidden = fulfilments.length === 0;
  byId("shipment-list").replaceChildren(...fulfilments.map((fulfilment) => element("li", { class: "shipment" },
    element("p", {}, element("strong", {}, SHIPMENTS[fulfilment.status] ?? fulfilment.status), " ",
      formatTime(fulfilment.delivered_at ?? fulfilment.failed_at ?? fulfilment.shipped_at)),
    trackingText(fulfilment),
    element("p", { class: "hint" }, fulfilment.lines.map((line) => `${line.quantity} × ${names.get(line.line_id)}`).join(", ")))));
}

function trackingText({ carrier, tracking_number: number }) {
  if (number === null) return carrier === null ? null : element("p", {}, carrier);
  return element("p", {}, `${carrier ?? "Tracking number"}: `, element("code", {}, number));
}

// a kind of change that this page does not know is shown by its name
function changeText(change, payment) {
  if (change === "payment_refunded" && payment === "partially_refunded") return CHANGES.payment_partially_refunded;
  if (CHANGES[change] !== undefined) return CHANGES[change];
  const words = change.replaceAll("_", " ");
  return `${words.charAt(0).toUpperCase()}${words.slice(1)}.`;
}
