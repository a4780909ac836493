/** Files that staff send, against a real server. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { idempotencyKey, importUpload, imageUpload, unwrap, type Markethall } from "../src/index.js";
import { ShopServer } from "./server.js";

const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
let server: ShopServer;
let admin: Markethall;

before(async () => {
  server = await ShopServer.start();
  admin = await server.admin();
});

after(() => server.stop());

test("an image is uploaded, and a repeated key uploads it once", async () => {
  const image = new Blob([Buffer.from(PNG, "base64")]);
  const header = idempotencyKey();

  const [made, repeated] = [
    await unwrap(admin.POST("/media", { ...imageUpload(image), params: { header } })),
    await unwrap(admin.POST("/media", { ...imageUpload(image), params: { header } })),
  ];

  assert.deepEqual([made.width, made.height], [1, 1]);
  assert.equal(repeated.media_id, made.media_id);
});

test("a file of products is imported", async () => {
  const file = new Blob(["sku,name,price\nUPLOADED-1,Uploaded,1.50\n"]);

  const started = await unwrap(
    admin.POST("/imports", {
      ...importUpload(file, "text/csv"),
      params: { query: { dry_run: true } },
    }),
  );

  assert.equal(started.format, "csv");
  assert.equal(started.dry_run, true);
});
