// Calls to the service on behalf of the user who is logged in.
import { delay, request } from "./http.js";
import { readNpy } from "./npy.js";
import { session } from "./session.js";
export { ApiError } from "./errors.js";

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

let limits = null;
// The limits of a request.
export async function readLimits() {
  limits ??= (await call("api/status")).limits;
  return limits;
}

// No request takes long, so that progress is visible and other users are not kept waiting.
const MAX_SENTENCES = 512;
const MAX_BYTES = 256_000;

const encoder = new TextEncoder();

// Splits texts into the parts of single requests. A token has at least one byte, nearly always.
export function splitTexts(texts, { max_sentences, max_request_tokens, max_request_bytes }) {
  const sentences = Math.min(MAX_SENTENCES, max_sentences);
  const size = Math.min(MAX_BYTES, max_request_tokens, max_request_bytes);
  const parts = [];
  let room = 0;
  for (const text of texts) {
    // <s> and </s> are tokens, too.
    const needed = encoder.encode(text).length + 2;
    if (parts.length === 0 || parts.at(-1).length === sentences || needed > room) {
      parts.push([]);
      room = size;
    }
    parts.at(-1).push(text);
    room -= needed;
  }
  return parts;
}

// A search that fails for longer gives up.
const RETRY_SECONDS = 120;

async function withRetries(action, signal) {
  const end = Date.now() + RETRY_SECONDS * 1000;
  for (let attempt = 0; ; attempt++) {
    try {
      return await action();
    } catch (error) {
      const wait = error.retryAfter ?? Math.min(2 ** attempt, 15);
      if (!error.isTemporary || Date.now() + wait * 1000 > end) throw error;
      await delay(wait, signal);
    }
  }
}

// The vectors of texts: {rows, dimension, vectors}. Waits and retries while the service is overloaded or away.
export async function embed(texts, { signal } = {}) {
  const matrices = [];
  for (const sentence of splitTexts(texts, await readLimits())) {
    const body = { sentence, format: "npy" };
    matrices.push(readNpy(await withRetries(() => call("embed", { method: "POST", body, signal, as: "bytes" }), signal)));
  }
  const dimension = matrices[0]?.shape[1] ?? 0;
  const vectors = matrices.length === 1 ? matrices[0].data : new Float32Array(texts.length * dimension);
  if (matrices.length > 1) {
    let row = 0;
    for (const { shape, data } of matrices) {
      vectors.set(data, row * dimension);
      row += shape[0];
    }
  }
  return { rows: texts.length, dimension, vectors };
}

// The tokens of texts, with their ids, and their positions in bytes of UTF-8 and in characters: [{tokens, ids, bytes, chars}].
export async function tokenize(texts, { signal } = {}) {
  const rows = [];
  for (const sentence of splitTexts(texts, await readLimits())) {
    const { tokens, ids, bytes, chars } = await call("tokenize", { method: "POST", body: { sentence, details: true }, signal });
    tokens.forEach((_, i) => rows.push({ tokens: tokens[i], ids: ids[i], bytes: bytes[i], chars: chars[i] }));
  }
  return rows;
}
