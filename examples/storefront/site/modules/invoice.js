// The invoice of an order. A link could not send the token, so the page reads the file.
import { hasCode } from "./api.js";
import { byId, element } from "./dom.js";
import { clearMessage, showError, showErrorText } from "./messages.js";
import { orderShop } from "./order-client.js";
import { unwrap } from "../markethall-client.js";

// an order gets its invoice when it is paid
const WITH_INVOICE = ["authorized", "paid", "partially_refunded", "refunded"];
const KEPT_MS = 60_000;
const button = byId("download-invoice");
const message = byId("invoice-message");

/** Show the button while the order has an invoice. */
export function showInvoice(order) {
  byId("invoice").hidden = !WITH_INVOICE.includes(order.payment_status);
  button.onclick = () => download(order);
}

async function download({ order_id: id, number }) {
  button.disabled = true;
  clearMessage(message);
  try {
    const { file, suffix } = await readFile({ path: { order_id: id } });
    save(file, `invoice-${number}.${suffix}`);
  } catch (error) {
    if (hasCode(error, "orders.invoice_not_found")) showErrorText("The invoice is not ready yet. Try again soon.", message);
    else showError(error, message);
  } finally {
    button.disabled = false;
  }
}

/** Read the PDF file, or the page for printing if the API cannot make PDF files. */
async function readFile(params) {
  const options = { params, parseAs: "blob" };
  try {
    return { file: await unwrap(orderShop.GET("/orders/{order_id}/invoice.pdf", options)), suffix: "pdf" };
  } catch (error) {
    if (!hasCode(error, "orders.invoice_pdf_unavailable")) throw error;
    return { file: await unwrap(orderShop.GET("/orders/{order_id}/invoice", options)), suffix: "html" };
  }
}

function save(file, name) {
  const url = URL.createObjectURL(file);
  element("a", { href: url, download: name }).click();
  // the browser reads the file after the click
  setTimeout(() => URL.revokeObjectURL(url), KEPT_MS);
}
