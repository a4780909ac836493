/** A customer's way from registration to a cancelled order, against a real server. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import {
  idempotencyKey,
  items,
  pages,
  ProblemError,
  unwrap,
  type Markethall,
  type OrderView,
} from "../src/index.js";
import { ShopServer } from "./server.js";

const ADDRESS = "Anna, 1 Market Square, 10115 Berlin";
let server: ShopServer;
let admin: Markethall;
let teaId: string;

before(async () => {
  server = await ShopServer.start();
  admin = await server.admin();
  teaId = await server.addProduct(admin, "TEA-1", "Green tea", 5);
  for (const number of [1, 2, 3, 4]) {
    await server.addProduct(admin, `CUP-${number}`, `Cup ${number}`, 1, { size: `${number}` });
  }
});

after(() => server.stop());

function placeOrder(shop: Markethall, quantity: number, key = idempotencyKey()) {
  return shop.POST("/orders", {
    params: { header: key },
    body: { product_id: teaId, quantity, shipping_address: ADDRESS },
  });
}

async function problemOf(call: Promise<unknown>): Promise<ProblemError> {
  const error = await call.then(
    () => assert.fail("the call was expected to fail"),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof ProblemError, String(error));
  return error;
}

test("a customer registers, finds a product, orders, pays and cancels", async () => {
  const shop = await server.customer("anna");
  const me = await unwrap(shop.GET("/users/me"));
  assert.equal(me.username, "anna");

  const found = await unwrap(shop.GET("/products", { params: { query: { q: "green tea" } } }));
  assert.deepEqual(found.items.map((product) => product.product_id), [teaId]);

  const placed = await placeOrder(shop, 2);
  const order: OrderView = await unwrap(placed);
  assert.equal(placed.response.headers.get("Location"), `/orders/${order.order_id}`);
  assert.deepEqual(order.total, { amount: 2500, currency: "EUR" });

  const payment = await unwrap(
    shop.POST("/payments/{payment_id}/confirm", {
      params: { path: { payment_id: order.payment.payment_id }, header: idempotencyKey() },
      body: { payment_method: "sandbox_ok" },
    }),
  );
  assert.equal(payment.status, "captured");

  const path = { order_id: order.order_id };
  const status = await unwrap(
    shop.GET("/orders/{order_id}/status", { params: { path, query: { wait: 10 } } }),
  );
  assert.equal(status.status, "processing");

  const cancelled = await unwrap(
    shop.POST("/orders/{order_id}/cancel", {
      params: { path, header: idempotencyKey() },
      body: { reason: "changed my mind" },
    }),
  );
  assert.equal(cancelled.status, "cancelled");
});

test("a guest orders without an account", async () => {
  const shop = server.client();
  const guest = await unwrap(shop.POST("/guests"));
  await shop.session.use(guest);

  const order = await unwrap(
    shop.POST("/orders", {
      params: { header: idempotencyKey() },
      body: {
        product_id: teaId,
        quantity: 1,
        shipping_address: ADDRESS,
        email: "guest@example.com",
      },
    }),
  );
  await unwrap(
    shop.POST("/orders/{order_id}/cancel", {
      params: { path: { order_id: order.order_id }, header: idempotencyKey() },
      body: { reason: "test" },
    }),
  );

  assert.equal(order.user_id, guest.guest_id);
});

test("lists are iterated over all their pages", async () => {
  const shop = server.client();
  const options = { params: { query: { limit: 2, sort: "name" } } } as const;

  const sizes: number[] = [];
  for await (const page of pages(shop, "/products", options)) sizes.push(page.items.length);
  const names: string[] = [];
  for await (const product of items(shop, "/products", options)) names.push(product.name);

  assert.deepEqual(sizes, [2, 2, 1]);
  assert.deepEqual(names, ["Cup 1", "Cup 2", "Cup 3", "Cup 4", "Green tea"]);
});

test("a list is filtered by several values of an option", async () => {
  const sort = "name" as const;
  const query = { option: { "option.size": ["1", "3"] }, in_stock: true, sort };

  const found = await unwrap(server.client().GET("/products", { params: { query } }));

  assert.deepEqual(found.items.map((product) => product.name), ["Cup 1", "Cup 3"]);
});

test("an order that exceeds the stock is a problem with the available units", async () => {
  const shop = await server.customer("bert");

  const error = await problemOf(unwrap(placeOrder(shop, 900)));

  assert.equal(error.status, 409);
  assert.equal(error.code, "inventory.out_of_stock");
  assert.deepEqual(error.problem.details["lines"], [
    { product_id: teaId, requested: 900, available: 5 },
  ]);
});

test("a repeated key returns the same order, and another payload is refused", async () => {
  const shop = await server.customer("cleo");
  const key = idempotencyKey("order-of-cleo");

  const first = await unwrap(placeOrder(shop, 1, key));
  const again = await placeOrder(shop, 1, key);
  const error = await problemOf(unwrap(placeOrder(shop, 2, key)));

  assert.equal((await unwrap(again)).order_id, first.order_id);
  assert.equal(again.response.headers.get("Idempotency-Replayed"), "true");
  assert.equal(error.status, 422);
  assert.equal(error.code, "idempotency.payload_mismatch");
});

test("an order of another customer is a problem with status 404", async () => {
  const order = await unwrap(placeOrder(await server.customer("dora"), 1));
  const stranger = await server.customer("emil");

  const error = await problemOf(
    unwrap(
      stranger.GET("/orders/{order_id}", { params: { path: { order_id: order.order_id } } }),
    ),
  );

  assert.equal(error.status, 404);
  assert.equal(error.code, "orders.not_found");
  assert.equal(error.problem.request_id, error.response.headers.get("X-Request-ID"));
});

test("invalid fields are named", async () => {
  const body = { username: "x", email: "no address", password: "a long and quiet sentence" };

  const error = await problemOf(
    unwrap(server.client().POST("/users", { params: { header: idempotencyKey() }, body })),
  );

  assert.equal(error.status, 422);
  assert.deepEqual(error.problem.errors?.map((each) => each.field).sort(), ["/email", "/username"]);
});
