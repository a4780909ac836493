/** Name of the header that makes the retry of a `POST` safe. */
export const IDEMPOTENCY_KEY_HEADER = "Idempotency-Key";

/**
 * Return the header parameter of one call: `params: { header: idempotencyKey() }`.
 *
 * Automatic retries of the call send the same key. To repeat a call after a reload of the page, store
 * the key before the call and pass it here.
 */
export function idempotencyKey(key: string = newKey()): { [IDEMPOTENCY_KEY_HEADER]: string } {
  return { [IDEMPOTENCY_KEY_HEADER]: key };
}

/** Return a random UUID, version 4. */
export function newKey(): string {
  // `crypto.randomUUID` exists only on pages from HTTPS or localhost
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes.set([((bytes[6] ?? 0) & 0x0f) | 0x40], 6);
  bytes.set([((bytes[8] ?? 0) & 0x3f) | 0x80], 8);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
