// The status of an order, in words.

const TEXTS = {
  pending: "We wait for your payment.",
  processing: "Paid. We prepare your order.",
  completed: "Your order has been delivered.",
  cancelled: "This order was cancelled.",
  expired: "This order was not paid in time and has expired.",
};
const SHIPPED_TEXTS = {
  partial: "A part of your order is on its way.",
  fulfilled: "Your order is on its way.",
  delivered: "Your shipments have arrived. The rest follows.",
};
const LABELS = {
  pending: "Waiting for payment",
  processing: "In preparation",
  completed: "Delivered",
  cancelled: "Cancelled",
  expired: "Expired",
};
const SHIPPED_LABELS = { partial: "Partly on its way", fulfilled: "On its way", delivered: "Partly delivered" };

/** Return the status as a sentence. */
export function statusText({ status, payment_status: payment, fulfilment_status: fulfilment }) {
  if (status === "processing") return SHIPPED_TEXTS[fulfilment] ?? TEXTS.processing;
  const text = TEXTS[status] ?? status;
  return status === "cancelled" && payment === "refunded" ? `${text} Your payment was refunded.` : text;
}

/** Return the status in a few words, for lists. */
export function statusLabel({ status, fulfilment_status: fulfilment }) {
  if (status === "processing") return SHIPPED_LABELS[fulfilment] ?? LABELS.processing;
  return LABELS[status] ?? status;
}
