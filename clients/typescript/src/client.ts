import createClient, { type Client } from "openapi-fetch";
import type { paths } from "./generated/schema.js";
import { serializeQuery } from "./query.js";
import { withRetries, type RetryOptions } from "./retry.js";
import { MemoryTokenStorage, Session, type TokenStorage } from "./session.js";
import type { Transport } from "./transport.js";

/** Options of `createMarkethall`. */
export interface MarkethallOptions {
  /** Address of the API, such as `https://api.example.com`. */
  readonly baseUrl: string;
  /** Default: tokens are in memory and lost with the page. */
  readonly tokenStorage?: TokenStorage;
  readonly retries?: RetryOptions;
  /** Sends the requests. Default: `fetch`. */
  readonly send?: Transport;
}

/** A client of `openapi-fetch` (`GET`, `POST`, …) for the paths of the API, with a session. */
export type Markethall = Client<paths> & { readonly session: Session };

/** Return a client that adds the access token to requests and repeats them where that is safe. */
export function createMarkethall(options: MarkethallOptions): Markethall {
  const baseUrl = options.baseUrl.replace(/\/+$/, "");
  const send = options.send ?? ((request) => fetch(request));
  const session = new Session(baseUrl, send, options.tokenStorage ?? new MemoryTokenStorage());
  const client = createClient<paths>({
    baseUrl,
    // that of openapi-fetch takes no arrays inside of objects
    querySerializer: serializeQuery,
    fetch: session.authorize(withRetries(send, options.retries)),
  });
  return Object.assign(client, { session });
}
