import type { TokenPair } from "./generated/schema.js";
import { errorOf } from "./problem.js";
import type { Transport } from "./transport.js";

/** The tokens of a signed-in customer, guest or member of staff. */
export type Tokens = Pick<TokenPair, "access_token" | "refresh_token">;

/** Where tokens are stored. Tabs that share a storage share one session. */
export interface TokenStorage {
  load(): Tokens | null | Promise<Tokens | null>;
  save(tokens: Tokens | null): void | Promise<void>;
}

/** Stores tokens until the page is closed. */
export class MemoryTokenStorage implements TokenStorage {
  #tokens: Tokens | null = null;

  load(): Tokens | null {
    return this.#tokens;
  }

  save(tokens: Tokens | null): void {
    this.#tokens = tokens;
  }
}

/** Stores tokens in `localStorage` or `sessionStorage`. Every script of the page can read them. */
export class WebTokenStorage implements TokenStorage {
  readonly #storage: Storage;
  readonly #name: string;

  constructor(storage: Storage, name = "markethall.tokens") {
    this.#storage = storage;
    this.#name = name;
  }

  load(): Tokens | null {
    const text = this.#storage.getItem(this.#name);
    return text === null ? null : (JSON.parse(text) as Tokens);
  }

  save(tokens: Tokens | null): void {
    if (tokens === null) this.#storage.removeItem(this.#name);
    else this.#storage.setItem(this.#name, JSON.stringify(tokens));
  }
}

/** Signs in, adds the access token to requests, and renews it once when the API answers 401. */
export class Session {
  readonly #baseUrl: string;
  readonly #send: Transport;
  readonly #storage: TokenStorage;
  #renewal: Promise<Tokens | null> | null = null;

  constructor(baseUrl: string, send: Transport, storage: TokenStorage) {
    this.#baseUrl = baseUrl;
    this.#send = send;
    this.#storage = storage;
  }

  /** Sign in with a user name or an e-mail address. @throws {ProblemError} `users.bad_credentials` */
  async login(username: string, password: string): Promise<void> {
    await this.#storage.save(await this.#requestTokens({ grant_type: "password", username, password }));
  }

  /** Continue with tokens that another call has returned. */
  async use(tokens: Tokens): Promise<void> {
    const { access_token, refresh_token } = tokens;
    await this.#storage.save({ access_token, refresh_token });
  }

  /** Forget the tokens, and revoke them at the server. */
  async logout(): Promise<void> {
    const tokens = await this.#storage.load();
    if (tokens === null) return;
    await this.#storage.save(null);
    const response = await this.#send(this.#form("/token/revoke", { token: tokens.refresh_token }));
    if (!response.ok) throw errorOf(await parsedBody(response), response);
  }

  /** Tell whether there are tokens; they may have expired. */
  async isSignedIn(): Promise<boolean> {
    return (await this.#storage.load()) !== null;
  }

  /** Return a transport that sends requests with the access token. */
  authorize(send: Transport): Transport {
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
  #renew(expired: Tokens): Promise<Tokens | null> {
    this.#renewal ??= acrossTabs(() => this.#renewOnce(expired)).finally(() => {
      this.#renewal = null;
    });
    return this.#renewal;
  }

  async #renewOnce(expired: Tokens): Promise<Tokens | null> {
    const stored = await this.#storage.load();
    // another request or tab has renewed the tokens, or has signed out
    if (stored?.refresh_token !== expired.refresh_token) return stored;
    const form = { grant_type: "refresh_token", refresh_token: stored.refresh_token };
    const renewed = await this.#requestTokens(form).catch((error: unknown) => {
      if (isRejectedToken(error)) return null;
      throw error;
    });
    await this.#storage.save(renewed);
    return renewed;
  }

  async #requestTokens(form: Record<string, string>): Promise<Tokens> {
    const response = await this.#send(this.#form("/token", form));
    const body = await parsedBody(response);
    if (!response.ok) throw errorOf(body, response);
    const { access_token, refresh_token } = body as TokenPair;
    return { access_token, refresh_token };
  }

  #form(path: string, form: Record<string, string>): Request {
    return new Request(this.#baseUrl + path, { method: "POST", body: new URLSearchParams(form) });
  }
}

function withToken(request: Request, tokens: Tokens): Request {
  request.headers.set("Authorization", `Bearer ${tokens.access_token}`);
  return request;
}

function isRejectedToken(error: unknown): boolean {
  return error instanceof Error && "status" in error && (error.status === 400 || error.status === 401);
}

/** Run the function while no other tab of this origin runs it, where the browser has such locks. */
async function acrossTabs<Value>(run: () => Promise<Value>): Promise<Value> {
  const locks = (globalThis.navigator as Partial<Navigator> | undefined)?.locks;
  return locks === undefined ? run() : locks.request("markethall.renew-tokens", run);
}

/** Parse a JSON body; return null for another body. */
async function parsedBody(response: Response): Promise<unknown> {
  const text = await response.text();
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
