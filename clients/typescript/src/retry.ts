import { IDEMPOTENCY_KEY_HEADER } from "./idempotency.js";
import type { Transport } from "./transport.js";

/** Limits of automatic retries. */
export interface RetryOptions {
  /** Attempts after the first one; 0 turns retries off. Default: 3. */
  readonly maxRetries?: number;
  /** A response that asks for a longer wait is returned instead. Default: 30. */
  readonly maxWaitSeconds?: number;
  /** Waits for a number of seconds; rejects when the signal aborts. Default: a timer. */
  readonly wait?: (seconds: number, signal: AbortSignal) => Promise<void>;
}

const SAFE_METHODS: ReadonlySet<string> = new Set(["GET", "HEAD"]);
const RETRIED_STATUSES: ReadonlySet<number> = new Set([429, 503]);
const INITIAL_BACKOFF_SECONDS = 0.5;

/**
 * Repeat a request that is safe or has an idempotency key: after 429 and 503, after 409 with
 * `Retry-After` (the first attempt is still running), and after a lost connection.
 */
export function withRetries(send: Transport, options: RetryOptions = {}): Transport {
  const { maxRetries = 3, maxWaitSeconds = 30, wait = waitForTimer } = options;
  return async (request) => {
    const retries = isRepeatable(request) ? maxRetries : 0;
    for (let retry = 0; retry < retries; retry += 1) {
      const response = await sendUnlessLost(send, request.clone());
      if (response !== null && !isTemporary(response)) return response;
      const seconds = waitBeforeRetry(response, retry);
      if (response !== null && seconds > maxWaitSeconds) return response;
      await response?.body?.cancel();
      await wait(seconds, request.signal);
    }
    return send(request);
  };
}

function isRepeatable(request: Request): boolean {
  return SAFE_METHODS.has(request.method) || request.headers.has(IDEMPOTENCY_KEY_HEADER);
}

function isTemporary(response: Response): boolean {
  return (
    RETRIED_STATUSES.has(response.status) ||
    (response.status === 409 && response.headers.has("Retry-After"))
  );
}

/** Return null if the connection failed. */
async function sendUnlessLost(send: Transport, request: Request): Promise<Response | null> {
  try {
    return await send(request);
  } catch (error) {
    // `fetch` rejects with a TypeError for a network error, and with another error after an abort
    if (error instanceof TypeError) return null;
    throw error;
  }
}

/** Return the seconds that `Retry-After` asks for, else an exponential backoff with jitter. */
function waitBeforeRetry(response: Response | null, retry: number): number {
  const asked = parseRetryAfter(response?.headers.get("Retry-After") ?? null);
  return asked ?? INITIAL_BACKOFF_SECONDS * 2 ** retry * (0.5 + Math.random() / 2);
}

/** Parse the header, which is a number of seconds or a date. Return null for other values. */
export function parseRetryAfter(value: string | null, now: number = Date.now()): number | null {
  if (value === null || value.trim() === "") return null;
  if (/^\d+$/.test(value.trim())) return Number(value);
  const time = Date.parse(value);
  return Number.isNaN(time) ? null : Math.max(0, (time - now) / 1000);
}

function waitForTimer(seconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const abort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    }, seconds * 1000);
    signal.addEventListener("abort", abort, { once: true });
  });
}
