/** Tokens: sign-in, renewal after 401, sign-out, against a real server. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  createMarkethall,
  MemoryTokenStorage,
  ProblemError,
  unwrap,
  type Tokens,
} from "../src/index.js";
import { PASSWORD, ShopServer } from "./server.js";

let server: ShopServer;

before(async () => {
  server = await ShopServer.start();
  await server.customer("anna");
});

after(() => server.stop());

/** A client that is signed in, and the paths of its requests so far. */
async function signedIn() {
  const storage = new MemoryTokenStorage();
  const sent: string[] = [];
  const shop = createMarkethall({
    baseUrl: server.baseUrl,
    tokenStorage: storage,
    send: (request) => {
      sent.push(new URL(request.url).pathname);
      return fetch(request);
    },
  });
  await shop.session.login("anna", PASSWORD);
  return { shop, storage, sent };
}

function withoutAccess(storage: MemoryTokenStorage): void {
  storage.save({ ...(storage.load() as Tokens), access_token: "expired" });
}

test("a wrong password is a problem", async () => {
  const login = server.client().session.login("anna", "a wrong sentence");

  await assert.rejects(login, (error) => {
    assert.ok(error instanceof ProblemError);
    assert.equal(error.code, "users.bad_credentials");
    return true;
  });
});

test("concurrent requests with an expired token renew it once", async () => {
  const { shop, storage, sent } = await signedIn();
  withoutAccess(storage);
  sent.length = 0;

  const users = await Promise.all([1, 2, 3].map(() => unwrap(shop.GET("/users/me"))));

  assert.deepEqual(users.map((user) => user.username), ["anna", "anna", "anna"]);
  assert.deepEqual(sent.filter((path) => path === "/token"), ["/token"]);
});

test("a client that shares the storage uses tokens that another one has renewed", async () => {
  const { shop, storage } = await signedIn();
  withoutAccess(storage);
  const other = createMarkethall({ baseUrl: server.baseUrl, tokenStorage: storage });

  await unwrap(shop.GET("/users/me"));
  await unwrap(other.GET("/users/me"));

  assert.ok(await other.session.isSignedIn());
});

test("a session whose refresh token is refused ends with the answer 401", async () => {
  const { shop, storage } = await signedIn();
  await storage.save({ access_token: "expired", refresh_token: "unknown" });

  const { response } = await shop.GET("/users/me");

  assert.equal(response.status, 401);
  assert.equal(await shop.session.isSignedIn(), false);
});

test("signing out revokes the refresh token", async () => {
  const { shop, storage } = await signedIn();
  const { refresh_token } = storage.load() as Tokens;

  await shop.session.logout();
  await storage.save({ access_token: "expired", refresh_token });
  const { response } = await shop.GET("/users/me");

  assert.equal(response.status, 401);
});
