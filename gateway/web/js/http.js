// Requests to the service, relative to the page: it may have a path prefix.
import { ApiError, errorOf } from "./errors.js";

export async function request(path, { method = "GET", query = {}, body, signal, as = "json" } = {}) {
  const url = new URL(path, document.baseURI);
  for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== null) url.searchParams.set(name, value);
  // With this header browsers do not ask for a password themselves after a wrong one.
  const headers = { "X-Requested-With": "XMLHttpRequest" };
  const options = { method, signal, headers, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  try {
    const response = await fetch(url, options);
    if (!response.ok) throw await errorOf(response);
    if (as === "bytes") return await response.arrayBuffer();
    if (as === "none" || response.status === 204) return null;
    return await response.json();
  } catch (error) {
    if (error instanceof ApiError || error.name === "AbortError") throw error;
    if (error instanceof SyntaxError) throw new ApiError(0, "The response is not from this service", { reason: "INVALID_RESPONSE" });
    // fetch reports no cause, so that pages cannot explore networks.
    throw new ApiError(0, "The service does not respond");
  }
}

// Waits; rejects with the reason of the signal when it aborts.
export function delay(seconds, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
