/** The part of the options of a call that sends a file. */
export interface FileOptions<Body, Sent extends FormData | Blob> {
  /** Satisfies the types only: `bodySerializer` makes the body. */
  readonly body: Body;
  readonly bodySerializer: () => Sent;
  readonly headers?: Readonly<Record<string, string>>;
}

/**
 * Return the options of `POST /media` that upload an image:
 * `shop.POST("/media", imageUpload(input.files[0]))`.
 */
export function imageUpload(image: Blob): FileOptions<{ file: string }, FormData> {
  return {
    body: { file: "" },
    bodySerializer: () => {
      const form = new FormData();
      // the server ignores the name, but a part without one is no file
      form.append("file", image, "image");
      return form;
    },
  };
}

/**
 * Return the options of `POST /imports` that send a file:
 * `shop.POST("/imports", { ...importUpload(file, "text/csv"), params: { query: { dry_run: true } } })`.
 */
export function importUpload(
  file: Blob,
  mediaType: "text/csv" | "application/x-ndjson",
): FileOptions<string, Blob> {
  return { body: "", bodySerializer: () => file, headers: { "Content-Type": mediaType } };
}
