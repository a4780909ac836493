import type { Client, FetchOptions } from "openapi-fetch";
import type { paths } from "./generated/schema.js";
import { unwrap, type Result } from "./problem.js";

interface Page<Item> {
  readonly items: readonly Item[];
  readonly next_cursor: string | null;
}

type Content<Path extends keyof paths> = paths[Path] extends {
  get: { responses: { 200: { content: { "application/json": infer Body } } } };
}
  ? Body
  : never;

/** Paths of lists: the answer has `items` and `next_cursor`. */
export type ListPath = {
  [Path in keyof paths]: [Content<Path>] extends [never]
    ? never
    : Content<Path> extends Page<unknown>
      ? Path
      : never;
}[keyof paths];

/** The page of a list, including `facets` where the list has them. */
export type PageOf<Path extends ListPath> = Content<Path>;

/** An item of a list. */
export type ItemOf<Path extends ListPath> = Content<Path> extends Page<infer Item> ? Item : never;

/** The parameters of a list, as for `client.GET`. */
export type ListOptions<Path extends ListPath> = FetchOptions<paths[Path]["get"]>;

/**
 * Iterate over the pages of a list. The next page is requested when the loop reaches it.
 *
 * @throws {ProblemError}
 */
export async function* pages<Path extends ListPath>(
  client: Pick<Client<paths>, "GET">,
  path: Path,
  options?: ListOptions<Path>,
): AsyncGenerator<PageOf<Path>, void, undefined> {
  let cursor = cursorOf(options);
  do {
    const page = await getPage(client, path, options, cursor);
    yield page as PageOf<Path>;
    cursor = page.next_cursor;
  } while (cursor !== null);
}

/** Iterate over the items of all pages of a list. @throws {ProblemError} */
export async function* items<Path extends ListPath>(
  client: Pick<Client<paths>, "GET">,
  path: Path,
  options?: ListOptions<Path>,
): AsyncGenerator<ItemOf<Path>, void, undefined> {
  for await (const page of pages(client, path, options)) {
    yield* (page as Page<ItemOf<Path>>).items;
  }
}

interface AnyOptions {
  readonly params?: { readonly query?: Readonly<Record<string, unknown>> };
}

function cursorOf(options: AnyOptions | undefined): string | null {
  const cursor = options?.params?.query?.["cursor"];
  return typeof cursor === "string" ? cursor : null;
}

function getPage(
  client: Pick<Client<paths>, "GET">,
  path: ListPath,
  options: AnyOptions | undefined,
  cursor: string | null,
): Promise<Page<unknown>> {
  const query = { ...options?.params?.query, ...(cursor === null ? {} : { cursor }) };
  // the compiler cannot resolve `GET` for a path that is a type parameter
  const get = client.GET as (path: string, options: AnyOptions) => Promise<Result<Page<unknown>>>;
  return unwrap(get(path, { ...options, params: { ...options?.params, query } }));
}
