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
export const shop = createMarkethall({
  baseUrl: apiUrl,
  tokenStorage: new WebTokenStorage(localStorage, "storefront.tokens"),
  retries: { maxRetries: 2 },
});

/** Send a GET request. Returns the body; throws as `unwrap` of the client does. */
export function read(path, params = {}) {
  return unwrap(shop.GET(path, { params }));
}

/** Tell whether the error is the problem document with this code. */
export function hasCode(error, code) {
  return error instanceof ProblemError && error.code === code;
}
