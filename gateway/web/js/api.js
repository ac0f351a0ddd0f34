// Calls to the service on behalf of the user who is logged in.
import { delay, request } from "./http.js";
import { readNpy } from "./npy.js";
import { session } from "./session.js";
import { ApiError } from "./errors.js";
export { ApiError };

// Sends a request; refreshes the access token once if it was rejected. Without a valid refresh token the session has ended.
export async function call(path, options = {}) {
  try {
    return await request(path, options);
  } catch (error) {
    if (!error.isUnauthenticated) throw error;
  }
  try {
    await session.refresh();
    return await request(path, options);
  } catch (error) {
    if (error.isUnauthenticated) session.ended();
    throw error;
  }
}

// The model and the limits of a request. Throws while no embedder serves.
export async function served({ signal } = {}) {
  const { model, limits, problem } = await call("api/status", { signal });
  if (!model) throw new ApiError(503, problem, { reason: "UNAVAILABLE" });
  return { model, limits };
}

// A request that fails for longer gives up.
const RETRY_SECONDS = 30;

async function withRetries(action, signal) {
  const end = Date.now() + RETRY_SECONDS * 1000;
  for (let attempt = 0; ; attempt++) {
    try {
      return await action();
    } catch (error) {
      const wait = error.retryAfter ?? 2 ** attempt;
      if (!error.isTemporary || Date.now() + wait * 1000 > end) throw error;
      await delay(wait, signal);
    }
  }
}

// The vectors of texts: {rows, dimension, vectors}. Waits and retries for a while if the service is overloaded or away.
export async function embed(texts, { signal } = {}) {
  const body = { sentence: texts, format: "npy" };
  const file = await withRetries(() => call("embed", { method: "POST", body, signal, as: "bytes" }), signal);
  const { shape: [rows, dimension], data } = readNpy(file);
  return { rows, dimension, vectors: data };
}

// The tokens of texts, with their ids, and their positions in bytes of UTF-8 and in characters: [{tokens, ids, bytes, chars}].
export async function tokenize(texts, { signal } = {}) {
  const body = { sentence: texts, details: true };
  const { tokens, ids, bytes, chars } = await withRetries(() => call("tokenize", { method: "POST", body, signal }), signal);
  return tokens.map((_, i) => ({ tokens: tokens[i], ids: ids[i], bytes: bytes[i], chars: chars[i] }));
}
