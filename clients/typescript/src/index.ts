export { createMarkethall, type Markethall, type MarkethallOptions } from "./client.js";
export { IDEMPOTENCY_KEY_HEADER, idempotencyKey, newKey } from "./idempotency.js";
export { items, pages, type ItemOf, type ListOptions, type ListPath, type PageOf } from "./pages.js";
export { ProblemError, UnexpectedResponseError, unwrap, type Result } from "./problem.js";
export { parseRetryAfter, type RetryOptions } from "./retry.js";
export {
  MemoryTokenStorage,
  Session,
  WebTokenStorage,
  type Tokens,
  type TokenStorage,
} from "./session.js";
export type { Transport } from "./transport.js";
export { imageUpload, importUpload, type FileOptions } from "./uploads.js";
export type * from "./generated/schema.js";
