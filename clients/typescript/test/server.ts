/** Starts the shop in memory, on a free port of the loopback interface, for one test file. */
import { spawn, type ChildProcess, type ChildProcessByStdio } from "node:child_process";
import { once } from "node:events";
import { webcrypto } from "node:crypto";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { createMarkethall, idempotencyKey, unwrap, type Markethall } from "../src/index.js";

// Node.js 18, which Debian 12 has, does not define it
globalThis.crypto ??= webcrypto as Crypto;

export const PASSWORD = "a long and quiet sentence";
const COMMAND = process.env["SHOP_COMMAND"] ?? "../../.venv/bin/markethall";
const START_MILLISECONDS = 60_000;
const ADMIN = { email: "admin@example.com", password: "open sesame, staff only" };

export class ShopServer {
  readonly #process: ChildProcess;
  readonly baseUrl: string;

  private constructor(process: ChildProcess, baseUrl: string) {
    this.#process = process;
    this.baseUrl = baseUrl;
  }

  static async start(environment: Record<string, string> = {}): Promise<ShopServer> {
    const child = spawn(COMMAND, ["serve", "--memory", "--port", "0"], {
      // no setting of the caller's shop
      env: {
        PATH: process.env["PATH"],
        HOME: process.env["HOME"],
        MARKETHALL_ADMIN_EMAIL: ADMIN.email,
        MARKETHALL_ADMIN_PASSWORD: ADMIN.password,
        MARKETHALL_BCRYPT_COST: "4",
        ...environment,
      },
      stdio: ["ignore", "ignore", "pipe"],
    });
    return new ShopServer(child, await boundAddress(child));
  }

  /** End the server by its process id, and wait until it has ended. */
  async stop(): Promise<void> {
    const exit = once(this.#process, "exit");
    this.#process.kill("SIGTERM");
    await exit;
  }

  client(): Markethall {
    return createMarkethall({ baseUrl: this.baseUrl });
  }

  async admin(): Promise<Markethall> {
    const admin = this.client();
    await admin.session.login(ADMIN.email, ADMIN.password);
    return admin;
  }

  /** Register a customer and return a client that is signed in. */
  async customer(username: string): Promise<Markethall> {
    const customer = this.client();
    const body = { username, email: `${username}@example.com`, password: PASSWORD };
    await unwrap(customer.POST("/users", { params: { header: idempotencyKey() }, body }));
    await customer.session.login(username, PASSWORD);
    return customer;
  }

  /** Add a product with stock and return its id. */
  async addProduct(
    admin: Markethall,
    sku: string,
    name: string,
    stock: number,
    options: Record<string, string> = {},
  ): Promise<string> {
    const header = idempotencyKey();
    const body = { sku, name, options, price: { amount: 1250, currency: "EUR" as const } };
    const product = await unwrap(admin.POST("/products", { params: { header }, body }));
    await unwrap(
      admin.POST("/products/{product_id}/stock-adjustments", {
        params: { path: { product_id: product.product_id }, header: idempotencyKey() },
        body: { delta: stock, reason: "received" },
      }),
    );
    return product.product_id;
  }
}

/** Read the address from the banner. Rejects if the process ends, or prints none for a minute. */
function boundAddress(child: ChildProcessByStdio<null, null, Readable>): Promise<string> {
  const output: string[] = [];
  return new Promise((resolve, reject) => {
    const fail = () => reject(new Error(`the server has not started:\n${output.join("\n")}`));
    const timer = setTimeout(fail, START_MILLISECONDS);
    // reads until the process ends, so that the server never waits for a full pipe
    createInterface(child.stderr).on("line", (line) => {
      output.push(line);
      const address = /API: +(http:\S+)/.exec(line)?.[1];
      if (address === undefined) return;
      clearTimeout(timer);
      resolve(address);
    });
    child.once("error", reject);
    child.once("exit", fail);
  });
}
