/** Sends a request. Each layer of the client wraps another function of this type. */
export type Transport = (request: Request) => Promise<Response>;
