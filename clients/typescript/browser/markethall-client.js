// node_modules/openapi-fetch/dist/index.mjs
var PATH_PARAM_RE = /\{[^{}]+\}/g;
var supportsRequestInitExt = () => {
  return typeof process === "object" && Number.parseInt(process?.versions?.node?.substring(0, 2)) >= 18 && process.versions.undici;
};
function randomID() {
  return Math.random().toString(36).slice(2, 11);
}
function createClient(clientOptions) {
  let {
    baseUrl = "",
    Request: CustomRequest = globalThis.Request,
    fetch: baseFetch = globalThis.fetch,
    querySerializer: globalQuerySerializer,
    bodySerializer: globalBodySerializer,
    pathSerializer: globalPathSerializer,
    headers: baseHeaders,
    requestInitExt = void 0,
    ...baseOptions
  } = { ...clientOptions };
  requestInitExt = supportsRequestInitExt() ? requestInitExt : void 0;
  baseUrl = removeTrailingSlash(baseUrl);
  const globalMiddlewares = [];
  async function coreFetch(schemaPath, fetchOptions) {
    const {
      baseUrl: localBaseUrl,
      fetch: fetch2 = baseFetch,
      Request: Request2 = CustomRequest,
      headers,
      params = {},
      parseAs = "json",
      querySerializer: requestQuerySerializer,
      bodySerializer = globalBodySerializer ?? defaultBodySerializer,
      pathSerializer: requestPathSerializer,
      body,
      middleware: requestMiddlewares = [],
      ...init
    } = fetchOptions || {};
    let finalBaseUrl = baseUrl;
    if (localBaseUrl) {
      finalBaseUrl = removeTrailingSlash(localBaseUrl) ?? baseUrl;
    }
    let querySerializer = typeof globalQuerySerializer === "function" ? globalQuerySerializer : createQuerySerializer(globalQuerySerializer);
    if (requestQuerySerializer) {
      querySerializer = typeof requestQuerySerializer === "function" ? requestQuerySerializer : createQuerySerializer({
        ...typeof globalQuerySerializer === "object" ? globalQuerySerializer : {},
        ...requestQuerySerializer
      });
    }
    const pathSerializer = requestPathSerializer || globalPathSerializer || defaultPathSerializer;
    const serializedBody = body === void 0 ? void 0 : bodySerializer(
      body,
      // Note: we declare mergeHeaders() both here and below because it’s a bit of a chicken-or-egg situation:
      // bodySerializer() needs all headers so we aren’t dropping ones set by the user, however,
      // the result of this ALSO sets the lowest-priority content-type header. So we re-merge below,
      // setting the content-type at the very beginning to be overwritten.
      // Lastly, based on the way headers work, it’s not a simple “present-or-not” check becauase null intentionally un-sets headers.
      mergeHeaders(baseHeaders, headers, params.header)
    );
    const finalHeaders = mergeHeaders(
      // with no body, we should not to set Content-Type
      serializedBody === void 0 || // if serialized body is FormData; browser will correctly set Content-Type & boundary expression
      serializedBody instanceof FormData ? {} : {
        "Content-Type": "application/json"
      },
      baseHeaders,
      headers,
      params.header
    );
    const finalMiddlewares = [...globalMiddlewares, ...requestMiddlewares];
    const requestInit = {
      redirect: "follow",
      ...baseOptions,
      ...init,
      body: serializedBody,
      headers: finalHeaders
    };
    let id;
    let options;
    let request = new Request2(
      createFinalURL(schemaPath, { baseUrl: finalBaseUrl, params, querySerializer, pathSerializer }),
      requestInit
    );
    let response;
    for (const key in init) {
      if (!(key in request)) {
        request[key] = init[key];
      }
    }
    if (finalMiddlewares.length) {
      id = randomID();
      options = Object.freeze({
        baseUrl: finalBaseUrl,
        fetch: fetch2,
        parseAs,
        querySerializer,
        bodySerializer,
        pathSerializer
      });
      for (const m of finalMiddlewares) {
        if (m && typeof m === "object" && typeof m.onRequest === "function") {
          const result = await m.onRequest({
            request,
            schemaPath,
            params,
            options,
            id
          });
          if (result) {
            if (result instanceof Request2) {
              request = result;
            } else if (result instanceof Response) {
              response = result;
              break;
            } else {
              throw new Error("onRequest: must return new Request() or Response() when modifying the request");
            }
          }
        }
      }
    }
    if (!response) {
      try {
        response = await fetch2(request, requestInitExt);
      } catch (error2) {
        let errorAfterMiddleware = error2;
        if (finalMiddlewares.length) {
          for (let i = finalMiddlewares.length - 1; i >= 0; i--) {
            const m = finalMiddlewares[i];
            if (m && typeof m === "object" && typeof m.onError === "function") {
              const result = await m.onError({
                request,
                error: errorAfterMiddleware,
                schemaPath,
                params,
                options,
                id
              });
              if (result) {
                if (result instanceof Response) {
                  errorAfterMiddleware = void 0;
                  response = result;
                  break;
                }
                if (result instanceof Error) {
                  errorAfterMiddleware = result;
                  continue;
                }
                throw new Error("onError: must return new Response() or instance of Error");
              }
            }
          }
        }
        if (errorAfterMiddleware) {
          throw errorAfterMiddleware;
        }
      }
      if (finalMiddlewares.length) {
        for (let i = finalMiddlewares.length - 1; i >= 0; i--) {
          const m = finalMiddlewares[i];
          if (m && typeof m === "object" && typeof m.onResponse === "function") {
            const result = await m.onResponse({
              request,
              response,
              schemaPath,
              params,
              options,
              id
            });
            if (result) {
              if (!(result instanceof Response)) {
                throw new Error("onResponse: must return new Response() when modifying the response");
              }
              response = result;
            }
          }
        }
      }
    }
    const contentLength = response.headers.get("Content-Length");
    if (response.status === 204 || request.method === "HEAD" || contentLength === "0" && !response.headers.get("Transfer-Encoding")?.includes("chunked")) {
      return response.ok ? { data: void 0, response } : { error: void 0, response };
    }
    if (response.ok) {
      const getResponseData = async () => {
        if (parseAs === "stream") {
          return response.body;
        }
        if (parseAs === "json" && !contentLength) {
          const raw = await response.text();
          return raw ? JSON.parse(raw) : void 0;
        }
        return await response[parseAs]();
      };
      return { data: await getResponseData(), response };
    }
    let error = await response.text();
    try {
      error = JSON.parse(error);
    } catch {
    }
    return { error, response };
  }
  return {
    request(method, url, init) {
      return coreFetch(url, { ...init, method: method.toUpperCase() });
    },
    /** Call a GET endpoint */
    GET(url, init) {
      return coreFetch(url, { ...init, method: "GET" });
    },
    /** Call a PUT endpoint */
    PUT(url, init) {
      return coreFetch(url, { ...init, method: "PUT" });
    },
    /** Call a POST endpoint */
    POST(url, init) {
      return coreFetch(url, { ...init, method: "POST" });
    },
    /** Call a DELETE endpoint */
    DELETE(url, init) {
      return coreFetch(url, { ...init, method: "DELETE" });
    },
    /** Call a OPTIONS endpoint */
    OPTIONS(url, init) {
      return coreFetch(url, { ...init, method: "OPTIONS" });
    },
    /** Call a HEAD endpoint */
    HEAD(url, init) {
      return coreFetch(url, { ...init, method: "HEAD" });
    },
    /** Call a PATCH endpoint */
    PATCH(url, init) {
      return coreFetch(url, { ...init, method: "PATCH" });
    },
    /** Call a TRACE endpoint */
    TRACE(url, init) {
      return coreFetch(url, { ...init, method: "TRACE" });
    },
    /** Register middleware */
    use(...middleware) {
      for (const m of middleware) {
        if (!m) {
          continue;
        }
        if (typeof m !== "object" || !("onRequest" in m || "onResponse" in m || "onError" in m)) {
          throw new Error("Middleware must be an object with one of `onRequest()`, `onResponse() or `onError()`");
        }
        globalMiddlewares.push(m);
      }
    },
    /** Unregister middleware */
    eject(...middleware) {
      for (const m of middleware) {
        const i = globalMiddlewares.indexOf(m);
        if (i !== -1) {
          globalMiddlewares.splice(i, 1);
        }
      }
    }
  };
}
function serializePrimitiveParam(name, value, options) {
  if (value === void 0 || value === null) {
    return "";
  }
  if (typeof value === "object") {
    throw new Error(
      "Deeply-nested arrays/objects aren’t supported. Provide your own `querySerializer()` to handle these."
    );
  }
  return `${name}=${options?.allowReserved === true ? value : encodeURIComponent(value)}`;
}
function serializeObjectParam(name, value, options) {
  if (!value || typeof value !== "object") {
    return "";
  }
  const values = [];
  const joiner = {
    simple: ",",
    label: ".",
    matrix: ";"
  }[options.style] || "&";
  if (options.style !== "deepObject" && options.explode === false) {
    for (const k in value) {
      values.push(k, options.allowReserved === true ? value[k] : encodeURIComponent(value[k]));
    }
    const final2 = values.join(",");
    switch (options.style) {
      case "form": {
        return `${name}=${final2}`;
      }
      case "label": {
        return `.${final2}`;
      }
      case "matrix": {
        return `;${name}=${final2}`;
      }
      default: {
        return final2;
      }
    }
  }
  for (const k in value) {
    const finalName = options.style === "deepObject" ? `${name}[${k}]` : k;
    values.push(serializePrimitiveParam(finalName, value[k], options));
  }
  const final = values.join(joiner);
  return options.style === "label" || options.style === "matrix" ? `${joiner}${final}` : final;
}
function serializeArrayParam(name, value, options) {
  if (!Array.isArray(value)) {
    return "";
  }
  if (options.explode === false) {
    const joiner2 = { form: ",", spaceDelimited: "%20", pipeDelimited: "|" }[options.style] || ",";
    const final = (options.allowReserved === true ? value : value.map((v) => encodeURIComponent(v))).join(joiner2);
    switch (options.style) {
      case "simple": {
        return final;
      }
      case "label": {
        return `.${final}`;
      }
      case "matrix": {
        return `;${name}=${final}`;
      }
      // case "spaceDelimited":
      // case "pipeDelimited":
      default: {
        return `${name}=${final}`;
      }
    }
  }
  const joiner = { simple: ",", label: ".", matrix: ";" }[options.style] || "&";
  const values = [];
  for (const v of value) {
    if (options.style === "simple" || options.style === "label") {
      values.push(options.allowReserved === true ? v : encodeURIComponent(v));
    } else {
      values.push(serializePrimitiveParam(name, v, options));
    }
  }
  return options.style === "label" || options.style === "matrix" ? `${joiner}${values.join(joiner)}` : values.join(joiner);
}
function createQuerySerializer(options) {
  return function querySerializer(queryParams) {
    const search = [];
    if (queryParams && typeof queryParams === "object") {
      for (const name in queryParams) {
        const value = queryParams[name];
        if (value === void 0 || value === null) {
          continue;
        }
        if (Array.isArray(value)) {
          if (value.length === 0) {
            continue;
          }
          search.push(
            serializeArrayParam(name, value, {
              style: "form",
              explode: true,
              ...options?.array,
              allowReserved: options?.allowReserved || false
            })
          );
          continue;
        }
        if (typeof value === "object") {
          search.push(
            serializeObjectParam(name, value, {
              style: "deepObject",
              explode: true,
              ...options?.object,
              allowReserved: options?.allowReserved || false
            })
          );
          continue;
        }
        search.push(serializePrimitiveParam(name, value, options));
      }
    }
    return search.join("&");
  };
}
function defaultPathSerializer(pathname, pathParams) {
  let nextURL = pathname;
  for (const match of pathname.match(PATH_PARAM_RE) ?? []) {
    let name = match.substring(1, match.length - 1);
    let explode = false;
    let style = "simple";
    if (name.endsWith("*")) {
      explode = true;
      name = name.substring(0, name.length - 1);
    }
    if (name.startsWith(".")) {
      style = "label";
      name = name.substring(1);
    } else if (name.startsWith(";")) {
      style = "matrix";
      name = name.substring(1);
    }
    if (!pathParams || pathParams[name] === void 0 || pathParams[name] === null) {
      continue;
    }
    const value = pathParams[name];
    if (Array.isArray(value)) {
      nextURL = nextURL.replace(match, serializeArrayParam(name, value, { style, explode }));
      continue;
    }
    if (typeof value === "object") {
      nextURL = nextURL.replace(match, serializeObjectParam(name, value, { style, explode }));
      continue;
    }
    if (style === "matrix") {
      nextURL = nextURL.replace(match, `;${serializePrimitiveParam(name, value)}`);
      continue;
    }
    nextURL = nextURL.replace(match, style === "label" ? `.${encodeURIComponent(value)}` : encodeURIComponent(value));
  }
  return nextURL;
}
function defaultBodySerializer(body, headers) {
  if (body instanceof FormData) {
    return body;
  }
  if (headers) {
    const contentType = headers.get instanceof Function ? headers.get("Content-Type") ?? headers.get("content-type") : headers["Content-Type"] ?? headers["content-type"];
    if (contentType === "application/x-www-form-urlencoded") {
      return new URLSearchParams(body).toString();
    }
  }
  return JSON.stringify(body);
}
function createFinalURL(pathname, options) {
  let finalURL = `${options.baseUrl}${pathname}`;
  if (options.params?.path) {
    finalURL = options.pathSerializer(finalURL, options.params.path);
  }
  let search = options.querySerializer(options.params.query ?? {});
  if (search.startsWith("?")) {
    search = search.substring(1);
  }
  if (search) {
    finalURL += `?${search}`;
  }
  return finalURL;
}
function mergeHeaders(...allHeaders) {
  const finalHeaders = new Headers();
  for (const h of allHeaders) {
    if (!h || typeof h !== "object") {
      continue;
    }
    const iterator = h instanceof Headers ? h.entries() : Object.entries(h);
    for (const [k, v] of iterator) {
      if (v === null) {
        finalHeaders.delete(k);
      } else if (Array.isArray(v)) {
        for (const v2 of v) {
          finalHeaders.append(k, v2);
        }
      } else if (v !== void 0) {
        finalHeaders.set(k, v);
      }
    }
  }
  return finalHeaders;
}
function removeTrailingSlash(url) {
  if (url.endsWith("/")) {
    return url.substring(0, url.length - 1);
  }
  return url;
}

// src/query.ts
function serializeQuery(query) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) append(search, name, value);
  return search.toString();
}
function append(search, name, value) {
  if (value === void 0 || value === null) return;
  if (Array.isArray(value)) {
    for (const each of value) append(search, name, each);
  } else if (typeof value === "object") {
    for (const [member, each] of Object.entries(value)) append(search, member, each);
  } else {
    search.append(name, String(value));
  }
}

// src/idempotency.ts
var IDEMPOTENCY_KEY_HEADER = "Idempotency-Key";
function idempotencyKey(key = newKey()) {
  return { [IDEMPOTENCY_KEY_HEADER]: key };
}
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes.set([(bytes[6] ?? 0) & 15 | 64], 6);
  bytes.set([(bytes[8] ?? 0) & 63 | 128], 8);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

// src/retry.ts
var SAFE_METHODS = /* @__PURE__ */ new Set(["GET", "HEAD"]);
var RETRIED_STATUSES = /* @__PURE__ */ new Set([429, 503]);
var INITIAL_BACKOFF_SECONDS = 0.5;
function withRetries(send, options = {}) {
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
function isRepeatable(request) {
  return SAFE_METHODS.has(request.method) || request.headers.has(IDEMPOTENCY_KEY_HEADER);
}
function isTemporary(response) {
  return RETRIED_STATUSES.has(response.status) || response.status === 409 && response.headers.has("Retry-After");
}
async function sendUnlessLost(send, request) {
  try {
    return await send(request);
  } catch (error) {
    if (error instanceof TypeError) return null;
    throw error;
  }
}
function waitBeforeRetry(response, retry) {
  const asked = parseRetryAfter(response?.headers.get("Retry-After") ?? null);
  return asked ?? INITIAL_BACKOFF_SECONDS * 2 ** retry * (0.5 + Math.random() / 2);
}
function parseRetryAfter(value, now = Date.now()) {
  if (value === null || value.trim() === "") return null;
  if (/^\d+$/.test(value.trim())) return Number(value);
  const time = Date.parse(value);
  return Number.isNaN(time) ? null : Math.max(0, (time - now) / 1e3);
}
function waitForTimer(seconds, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const abort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    }, seconds * 1e3);
    signal.addEventListener("abort", abort, { once: true });
  });
}

// src/problem.ts
var ProblemError = class extends Error {
  name = "ProblemError";
  problem;
  response;
  constructor(problem, response) {
    super(`${problem.code}: ${problem.detail}`);
    this.problem = problem;
    this.response = response;
  }
  /** Stable code, such as `inventory.out_of_stock`. */
  get code() {
    return this.problem.code;
  }
  /** Status of the HTTP response. */
  get status() {
    return this.response.status;
  }
};
var UnexpectedResponseError = class extends Error {
  name = "UnexpectedResponseError";
  response;
  constructor(response) {
    super(`unexpected response with status ${response.status} from ${response.url}`);
    this.response = response;
  }
};
async function unwrap(call) {
  const { data, error, response } = await call;
  if (response.ok) {
    return data;
  }
  throw errorOf(error, response);
}
function errorOf(body, response) {
  return isProblem(body) ? new ProblemError(body, response) : new UnexpectedResponseError(response);
}
function isProblem(body) {
  return typeof body === "object" && body !== null && "code" in body && "status" in body;
}

// src/session.ts
var MemoryTokenStorage = class {
  #tokens = null;
  load() {
    return this.#tokens;
  }
  save(tokens) {
    this.#tokens = tokens;
  }
};
var WebTokenStorage = class {
  #storage;
  #name;
  constructor(storage, name = "markethall.tokens") {
    this.#storage = storage;
    this.#name = name;
  }
  load() {
    const text = this.#storage.getItem(this.#name);
    return text === null ? null : JSON.parse(text);
  }
  save(tokens) {
    if (tokens === null) this.#storage.removeItem(this.#name);
    else this.#storage.setItem(this.#name, JSON.stringify(tokens));
  }
};
var Session = class {
  #baseUrl;
  #send;
  #storage;
  #renewal = null;
  constructor(baseUrl, send, storage) {
    this.#baseUrl = baseUrl;
    this.#send = send;
    this.#storage = storage;
  }
  /** Sign in with a user name or an e-mail address. @throws {ProblemError} `users.bad_credentials` */
  async login(username, password) {
    await this.#storage.save(await this.#requestTokens({ grant_type: "password", username, password }));
  }
  /** Continue with tokens that another call has returned. */
  async use(tokens) {
    const { access_token, refresh_token } = tokens;
    await this.#storage.save({ access_token, refresh_token });
  }
  /** Forget the tokens, and revoke them at the server. */
  async logout() {
    const tokens = await this.#storage.load();
    if (tokens === null) return;
    await this.#storage.save(null);
    const response = await this.#send(this.#form("/token/revoke", { token: tokens.refresh_token }));
    if (!response.ok) throw errorOf(await parsedBody(response), response);
  }
  /** Tell whether there are tokens; they may have expired. */
  async isSignedIn() {
    return await this.#storage.load() !== null;
  }
  /** Return a transport that sends requests with the access token. */
  authorize(send) {
    return async (request) => {
      const tokens = await this.#storage.load();
      if (tokens === null || request.headers.has("Authorization")) return send(request);
      const response = await send(withToken(request.clone(), tokens));
      if (response.status !== 401) return response;
      const renewed = await this.#renew(tokens);
      if (renewed === null) return response;
      await response.body?.cancel();
      return send(withToken(request, renewed));
    };
  }
  /** Renew the tokens; concurrent requests share one renewal. Return null if the session has ended. */
  #renew(expired) {
    this.#renewal ??= acrossTabs(() => this.#renewOnce(expired)).finally(() => {
      this.#renewal = null;
    });
    return this.#renewal;
  }
  async #renewOnce(expired) {
    const stored = await this.#storage.load();
    if (stored?.refresh_token !== expired.refresh_token) return stored;
    const form = { grant_type: "refresh_token", refresh_token: stored.refresh_token };
    const renewed = await this.#requestTokens(form).catch((error) => {
      if (isRejectedToken(error)) return null;
      throw error;
    });
    await this.#storage.save(renewed);
    return renewed;
  }
  async #requestTokens(form) {
    const response = await this.#send(this.#form("/token", form));
    const body = await parsedBody(response);
    if (!response.ok) throw errorOf(body, response);
    const { access_token, refresh_token } = body;
    return { access_token, refresh_token };
  }
  #form(path, form) {
    return new Request(this.#baseUrl + path, { method: "POST", body: new URLSearchParams(form) });
  }
};
function withToken(request, tokens) {
  request.headers.set("Authorization", `Bearer ${tokens.access_token}`);
  return request;
}
function isRejectedToken(error) {
  return error instanceof Error && "status" in error && (error.status === 400 || error.status === 401);
}
async function acrossTabs(run) {
  const locks = globalThis.navigator?.locks;
  return locks === void 0 ? run() : locks.request("markethall.renew-tokens", run);
}
async function parsedBody(response) {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// src/client.ts
function createMarkethall(options) {
  const baseUrl = options.baseUrl.replace(/\/+$/, "");
  const send = options.send ?? ((request) => fetch(request));
  const session = new Session(baseUrl, send, options.tokenStorage ?? new MemoryTokenStorage());
  const client = createClient({
    baseUrl,
    // that of openapi-fetch takes no arrays inside of objects
    querySerializer: serializeQuery,
    fetch: session.authorize(withRetries(send, options.retries))
  });
  return Object.assign(client, { session });
}

// src/pages.ts
async function* pages(client, path, options) {
  let cursor = cursorOf(options);
  do {
    const page = await getPage(client, path, options, cursor);
    yield page;
    cursor = page.next_cursor;
  } while (cursor !== null);
}
async function* items(client, path, options) {
  for await (const page of pages(client, path, options)) {
    yield* page.items;
  }
}
function cursorOf(options) {
  const cursor = options?.params?.query?.["cursor"];
  return typeof cursor === "string" ? cursor : null;
}
function getPage(client, path, options, cursor) {
  const query = { ...options?.params?.query, ...cursor === null ? {} : { cursor } };
  const get = client.GET;
  return unwrap(get(path, { ...options, params: { ...options?.params, query } }));
}

// src/uploads.ts
function imageUpload(image) {
  return {
    body: { file: "" },
    bodySerializer: () => {
      const form = new FormData();
      form.append("file", image, "image");
      return form;
    }
  };
}
function importUpload(file, mediaType) {
  return { body: "", bodySerializer: () => file, headers: { "Content-Type": mediaType } };
}
export {
  IDEMPOTENCY_KEY_HEADER,
  MemoryTokenStorage,
  ProblemError,
  Session,
  UnexpectedResponseError,
  WebTokenStorage,
  createMarkethall,
  idempotencyKey,
  imageUpload,
  importUpload,
  items,
  newKey,
  pages,
  parseRetryAfter,
  unwrap
};
