// The client of the API, configured by the server of these pages.
import {
  createMarkethall,
  ProblemError,
  unwrap,
  WebTokenStorage,
} from "../markethall-client.js";

const response = await fetch("config.json");
const config = await response.json();

export const apiUrl = config.api_url;
export const tokenStorage = new WebTokenStorage(localStorage, "storefront.tokens");
export const shop = createClient({ tokenStorage });

/** Return a client of the API; see `MarkethallOptions` of the client for the options. */
export function createClient({ retries = { maxRetries: 2 }, ...options }) {
  return createMarkethall({ baseUrl: apiUrl, retries, ...options });
}

/** Send a GET request. Returns the body; throws as `unwrap` of the client does. */
export function read(path, params = {}) {
  return unwrap(shop.GET(path, { params }));
}

/** Tell whether the error is the problem document with one of these codes. */
export function hasCode(error, ...codes) {
  return error instanceof ProblemError && codes.includes(error.code);
}
