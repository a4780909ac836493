/** The bundle for pages without a build step exports the same as the package. */
import assert from "node:assert/strict";
import { test } from "node:test";
import * as client from "../src/index.js";

test("the bundle exports every function and class of the package", async () => {
  const bundle = new URL("../../browser/markethall-client.js", import.meta.url).href;

  const exported: object = await import(bundle);

  assert.deepEqual(Object.keys(exported).sort(), Object.keys(client).sort());
});
