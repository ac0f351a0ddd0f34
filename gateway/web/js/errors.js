// Errors of the service: what happened, and what the user can do about it.
import { duration } from "./format.js";

const inTime = (wait, otherwise) => (wait === null ? otherwise : `in ${duration(wait)}`);

// By reason (docs/api/errors.md; INVALID_RESPONSE is a reason of http.js), or by status where the response has none.
// `wait` is in seconds, or null.
const ADVICE = {
  BAD_CREDENTIALS: "Check the name and the password. Both are case-sensitive.",
  PERMISSION_DENIED: "Your account may not do this. Ask an administrator of the service.",
  NO_SUCH_USER: "Check the spelling of the name. The user may have been removed.",
  USER_EXISTS: "Choose another name.",
  LAST_ADMIN: "Make another user an administrator first.",
  TOO_MANY_KEYS: "Delete keys that nobody uses.",
  TOO_MANY_ATTEMPTS: (wait) => `Too many logins have failed for this name or from this address. Try again ${inTime(wait, "in a few minutes")}.`,
  QUOTA_EXHAUSTED: (wait) => `Your quota of tokens is used up. It is renewed ${inTime(wait, "at the end of its period")}; an administrator can raise it.`,
  INVALID_RESPONSE: "A proxy or another server responded. Reload the page; if the error persists, report it to the operator.",
  0: "Check your network connection. The service may also be restarting: try again in some seconds.",
  400: "Correct the input and try again.",
  401: "Your session has ended. Log in again; the content of this page is not lost.",
  403: "A proxy in front of the service must forward the Host header.",
  404: "It was removed in the meantime. Reload the list.",
  413: "Send fewer or shorter texts.",
  429: (wait) => `The service has more work than it can do now. Try again ${inTime(wait, "in some seconds")}.`,
  500: "This is an error of the service. Report it to the operator; the log has the details.",
  502: "A proxy does not reach the service. Try again; if the error persists, report it to the operator.",
  503: (wait) => `A part of the service is starting, or does not respond. Try again ${inTime(wait, "in some seconds")}; if the error persists, report it to the operator.`,
  504: "The service did not respond in time. Try again, with fewer or shorter texts.",
};

// An error response of the service, or (status 0) a network failure.
export class ApiError extends Error {
  constructor(status, message, { reason = null, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.reason = reason;
    this.retryAfter = retryAfter;
    const advice = ADVICE[reason] ?? ADVICE[status] ?? "Try again; if the error persists, report it to the operator.";
    this.advice = typeof advice === "function" ? advice(retryAfter) : advice;
  }

  // Whether the token was rejected: /embed and /tokenize answer some of these errors with 422.
  get isUnauthenticated() {
    return (this.status === 401 || this.status === 422) && this.reason !== "BAD_CREDENTIALS";
  }

  // Whether the same request may succeed later.
  get isTemporary() {
    return [0, 408, 429, 502, 503, 504].includes(this.status) && this.reason !== "QUOTA_EXHAUSTED";
  }
}

// The error of a response with a status of 400 or more.
export async function errorOf(response) {
  let body = {};
  try {
    body = JSON.parse(await response.text()) ?? {};
  } catch {
    // The page of a proxy, or a broken connection: the status suffices.
  }
  const message = [body.detail, body.msg, body.message, response.statusText].find((text) => typeof text === "string" && text);
  const seconds = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  return new ApiError(response.status, message ?? `HTTP status ${response.status}`, {
    reason: body.reason ?? null,
    retryAfter: Number.isNaN(seconds) ? null : Math.max(1, seconds),
  });
}
