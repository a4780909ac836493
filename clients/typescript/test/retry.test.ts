/** Retries: which requests are repeated, how often, after which wait, and with which key. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { idempotencyKey, parseRetryAfter, type RetryOptions } from "../src/index.js";
import { withRetries } from "../src/retry.js";
import "./server.js";

type Answer = Response | Error;

/** Send a request through the retries; `answers` are those of the network, in turn. */
async function run(request: Request, answers: readonly Answer[], options: RetryOptions = {}) {
  const waits: number[] = [];
  const sent: { key: string | null; body: string }[] = [];
  const network = async (each: Request): Promise<Response> => {
    const answer = answers[sent.length];
    sent.push({ key: each.headers.get("Idempotency-Key"), body: await each.text() });
    if (!(answer instanceof Response)) throw answer;
    return answer;
  };
  const wait = async (seconds: number): Promise<void> => void waits.push(seconds);
  const outcome = await withRetries(network, { wait, ...options })(request).catch((e: unknown) => e);
  return { outcome, sent, waits };
}

function answer(status: number, retryAfter?: string): Response {
  return new Response(null, retryAfter === undefined ? { status } : { status, headers: { "Retry-After": retryAfter } });
}

const URL = "http://shop.example/orders";
const get = () => new Request(URL);
const post = (headers: Record<string, string> = {}) =>
  new Request(URL, { method: "POST", body: "{}", headers });

test("a read is repeated after the wait that the server asks for", async () => {
  const ok = answer(200);

  const { outcome, waits } = await run(get(), [answer(503, "2"), answer(429, "7"), ok]);

  assert.equal(outcome, ok);
  assert.deepEqual(waits, [2, 7]);
});

test("a command with a key is repeated with the same key and body", async () => {
  const { sent } = await run(post(idempotencyKey("one")), [
    answer(503, "1"),
    new TypeError("connection lost"),
    answer(409, "1"),
    answer(201),
  ]);

  assert.deepEqual(sent, Array(4).fill({ key: "one", body: "{}" }));
});

test("a command without a key is never repeated", async () => {
  const busy = answer(503, "1");
  const lost = new TypeError("connection lost");

  assert.equal((await run(post(), [busy])).outcome, busy);
  assert.equal((await run(post(), [lost])).outcome, lost);
});

test("the last answer is returned when the retries are used up", async () => {
  const answers = [1, 2, 3, 4].map(() => answer(503, "1"));

  const { outcome, sent } = await run(get(), answers);

  assert.equal(outcome, answers[3]);
  assert.equal(sent.length, 4);
});

test("an answer that asks for a long wait is returned at once", async () => {
  const busy = answer(429, "31");

  const { outcome, waits } = await run(get(), [busy]);

  assert.equal(outcome, busy);
  assert.deepEqual(waits, []);
});

test("a conflict without Retry-After and other errors are returned at once", async () => {
  for (const status of [400, 404, 409, 500]) {
    const { outcome, sent } = await run(post(idempotencyKey()), [answer(status)]);
    assert.equal((outcome as Response).status, status);
    assert.equal(sent.length, 1);
  }
});

test("an aborted request ends its wait", async () => {
  const controller = new AbortController();
  const network = async (): Promise<Response> => {
    controller.abort(new Error("left the page"));
    return answer(503, "20");
  };

  const call = withRetries(network)(new Request(URL, { signal: controller.signal }));

  await assert.rejects(call, /left the page/);
});

test("Retry-After is a number of seconds or a date", () => {
  const now = Date.parse("2026-01-01T00:00:00Z");

  assert.equal(parseRetryAfter("12"), 12);
  assert.equal(parseRetryAfter("Thu, 01 Jan 2026 00:00:05 GMT", now), 5);
  assert.equal(parseRetryAfter("Wed, 31 Dec 2025 00:00:00 GMT", now), 0);
  assert.equal(parseRetryAfter("soon"), null);
  assert.equal(parseRetryAfter(""), null);
  assert.equal(parseRetryAfter(null), null);
});
