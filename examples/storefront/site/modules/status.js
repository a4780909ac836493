// Follows the status of an order by long polling.
import { shop } from "./api.js";
import { unwrap } from "../markethall-client.js";

const WAIT_SECONDS = 25;
// the API answers at once when too many requests wait; then the page waits between requests
const MIN_INTERVAL_MS = 1000;
const FINAL = new Set(["completed", "cancelled"]);

/**
 * Call `show(status)` with the status and each later one, until it is final. Each request waits
 * until the status differs from the known one, which its ETag names.
 */
export async function watchStatus(path, show) {
  const leaving = new AbortController();
  addEventListener("pagehide", () => leaving.abort());
  let etag = null;
  let status = null;
  while (!FINAL.has(status?.status)) {
    const startedAt = performance.now();
    const call = shop.GET("/orders/{order_id}/status", requestOf(path, etag, leaving.signal));
    const response = await call.then((answer) => answer.response, (error) => failure(error, leaving.signal));
    if (response === null) return;
    if (response.status !== 304) {
      status = await unwrap(call);
      etag = response.headers.get("ETag");
      show(status);
    } else {
      await pause(MIN_INTERVAL_MS - (performance.now() - startedAt));
    }
  }
}

// null: the request ended because the user leaves the page
function failure(error, signal) {
  if (signal.aborted) return null;
  throw error;
}

function requestOf(path, etag, signal) {
  if (etag === null) return { params: { path }, signal };
  return { params: { path, query: { wait: WAIT_SECONDS }, header: { "If-None-Match": etag } }, signal, cache: "no-store" };
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, Math.max(milliseconds, 0)));
}
