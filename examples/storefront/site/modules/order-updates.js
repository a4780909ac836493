// Follows the changes of an order: by its event stream, or by polling while there is no stream.
import { createOrderClient, orderShop, path } from "./order-client.js";
import { ProblemError, unwrap } from "../markethall-client.js";

// the API sends a comment every 15 seconds while nothing changes
const MAX_SILENCE_MS = 40_000;
// after a failed stream, the page polls for this time before it opens the next stream
const POLLING_MS = 60_000;
const POLL_WAIT_SECONDS = 25;
// the shortest time between two polls or two streams, even if they end at once
const MIN_INTERVAL_MS = 1000;
// no retries, because the page polls after a failed stream
const streams = createOrderClient({ maxRetries: 0 });

/**
 * Call `changed()` after each change of the order. `changed()` returns when the page shows the
 * change. `shownVersion()` is the version that the page shows. `showLost(isLost)` tells whether the
 * API responds. Ends when the user leaves the page; throws if the buyer may no longer read the
 * order.
 */
export async function watchOrder({ shownVersion, changed, showLost }) {
  const leaving = new AbortController();
  addEventListener("pagehide", () => leaving.abort());
  const order = { shownVersion, changed, showLost, signal: leaving.signal };
  while (!leaving.signal.aborted) {
    const startedAt = performance.now();
    try {
      await followStream(order);
    } catch (error) {
      if (!leaving.signal.aborted) await pollInstead(order, error);
    }
    await pause(MIN_INTERVAL_MS - (performance.now() - startedAt), leaving.signal);
  }
}

/** Read the stream until it ends. The stream starts after the version that the page shows. */
async function followStream({ shownVersion, changed, showLost, signal }) {
  const silence = silenceLimit(signal);
  try {
    const header = { "Last-Event-ID": shownVersion() };
    const stream = await unwrap(streams.GET("/orders/{order_id}/events", {
      params: { path, header }, parseAs: "stream", signal: silence.signal, cache: "no-store",
    }));
    showLost(false);
    for await (const event of events(stream, silence.restart)) if (event.version > shownVersion()) await changed();
  } finally {
    silence.stop();
  }
}

/**
 * Poll for a while, because the stream has failed, for example with 429 if too many streams are
 * open.
 */
async function pollInstead({ changed, showLost, signal }, error) {
  if (isFinal(error)) throw error;
  const end = performance.now() + POLLING_MS;
  let etag = null;
  while (performance.now() < end && !signal.aborted) {
    const startedAt = performance.now();
    try {
      const known = etag;
      etag = await poll(known, signal);
      showLost(false);
      if (etag !== known) await changed();
    } catch (failure) {
      if (signal.aborted) return;
      if (isFinal(failure)) throw failure;
      showLost(true);
      return;
    }
    await pause(MIN_INTERVAL_MS - (performance.now() - startedAt), signal);
  }
}

/** Wait until the order no longer has this entity tag. Returns the latest entity tag. */
async function poll(etag, signal) {
  const known = etag === null ? {} : { query: { wait: POLL_WAIT_SECONDS }, header: { "If-None-Match": etag } };
  const call = orderShop.GET("/orders/{order_id}/status", { params: { path, ...known }, signal, cache: "no-store" });
  const { response } = await call;
  if (response.status === 304) return etag;
  await unwrap(call);
  return response.headers.get("ETag");
}

// the buyer is not signed in, or the order belongs to another buyer
function isFinal(error) {
  return error instanceof ProblemError && [401, 403, 404].includes(error.status);
}

/**
 * Return the data of each event of the stream. `received()` is called for each chunk of the stream.
 */
async function* events(stream, received) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    received();
    const blocks = (text + part.value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (data.length > 0) yield JSON.parse(data.join("\n"));
    }
  }
}

/**
 * Return a signal that aborts when the other one does, or when `restart` was not called for too
 * long.
 */
function silenceLimit(signal) {
  const silence = new AbortController();
  const abort = () => silence.abort();
  let timer = setTimeout(abort, MAX_SILENCE_MS);
  return {
    signal: AbortSignal.any([signal, silence.signal]),
    restart() {
      clearTimeout(timer);
      timer = setTimeout(abort, MAX_SILENCE_MS);
    },
    stop: () => clearTimeout(timer),
  };
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    setTimeout(resolve, Math.max(milliseconds, 0));
    signal.addEventListener("abort", resolve, { once: true });
  });
}
