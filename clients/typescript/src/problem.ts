import type { Problem } from "./generated/schema.js";

/** An error response of the API: a problem document (RFC 9457) with a stable `code`. */
export class ProblemError extends Error {
  override readonly name = "ProblemError";
  readonly problem: Problem;
  readonly response: Response;

  constructor(problem: Problem, response: Response) {
    super(`${problem.code}: ${problem.detail}`);
    this.problem = problem;
    this.response = response;
  }

  /** Stable code, such as `inventory.out_of_stock`. */
  get code(): string {
    return this.problem.code;
  }

  /** Status of the HTTP response. */
  get status(): number {
    return this.response.status;
  }
}

/** An error response without a problem document, such as that of a proxy which is not Markethall. */
export class UnexpectedResponseError extends Error {
  override readonly name = "UnexpectedResponseError";
  readonly response: Response;

  constructor(response: Response) {
    super(`unexpected response with status ${response.status} from ${response.url}`);
    this.response = response;
  }
}

/** What a method of the client, such as `GET`, resolves to. */
export interface Result<Data> {
  data?: Data;
  error?: unknown;
  response: Response;
}

/**
 * Return the data of a successful call.
 *
 * @throws {ProblemError} for a problem document
 * @throws {UnexpectedResponseError} for another error response
 */
export async function unwrap<Data>(call: Result<Data> | Promise<Result<Data>>): Promise<Data> {
  const { data, error, response } = await call;
  if (response.ok) {
    // `undefined` for an answer without content, which is then also the type
    return data as Data;
  }
  throw errorOf(error, response);
}

/** Return the error for a response that is not successful, from its parsed body. */
export function errorOf(body: unknown, response: Response): ProblemError | UnexpectedResponseError {
  return isProblem(body) ? new ProblemError(body, response) : new UnexpectedResponseError(response);
}

function isProblem(body: unknown): body is Problem {
  return typeof body === "object" && body !== null && "code" in body && "status" in body;
}
