// Module worker with the lines and their vectors: reading files, parsing responses and comparing vectors must not block
// the page. Requests are {id, method, argument}; responses {id, result}, or {id, error, advice}.
import { readNpy } from "../npy.js";
import { dot } from "../vectors.js";
import { decodeText, splitLines, TextError } from "./text.js";

const MAX_FILE_BYTES = 64 * 1024 * 1024;
const MAX_RESULTS = 20;
// Longest text of a result.
const MAX_CHARACTERS = 600;

const encoder = new TextEncoder();
// [{line, text}]; the vectors of all lines, and which lines have theirs; the next line to embed; the last query.
let lines, vectors, ready, dimension;
let next = 0;
let query = {};

const methods = {
  // Reads a file or a string, of which at most `limit` lines are used.
  async load({ source, limit }) {
    if (source.size > MAX_FILE_BYTES) throw new TextError("The file has more than 64 MiB", "Split it.");
    const all = splitLines(source instanceof Blob ? decodeText(new Uint8Array(await source.arrayBuffer())) : source.toWellFormed());
    lines = all.slice(0, limit);
    return { found: all.length, total: lines.length };
  },

  // Allocates the vectors of all lines.
  allocate(width) {
    try {
      vectors = new Float32Array(lines.length * width);
    } catch {
      throw new TextError("The browser has not enough memory for the vectors", "Close other tabs, or load fewer lines.");
    }
    ready = new Uint8Array(lines.length);
    dimension = width;
  },

  // The next batch of at most `maxLines` lines and, if there are several, `maxBytes` of UTF-8; empty after the last one.
  // Lines of more than `maxLineBytes` are skipped.
  take({ maxLines, maxBytes, maxLineBytes }) {
    const batch = [], skipped = [];
    for (let sum = 0; next < lines.length && batch.length < maxLines; next++) {
      const size = encoder.encode(lines[next].text).length;
      if (size > maxLineBytes) {
        skipped.push({ ...lines[next], reason: `${size} bytes; the limit is ${maxLineBytes}` });
        continue;
      }
      sum += size;
      if (batch.length && sum > maxBytes) break;
      batch.push({ row: next, ...lines[next] });
    }
    return { batch, skipped };
  },

  // Stores the vectors of a batch.
  store({ rows, npy }) {
    const { shape, data } = readNpy(npy);
    if (shape[0] !== rows.length || shape[1] !== dimension) throw new Error(`The shape of the vectors is ${shape}`);
    rows.forEach((row, i) => {
      vectors.set(data.subarray(i * dimension, (i + 1) * dimension), row * dimension);
      ready[row] = 1;
    });
  },

  // The lines that are most similar to {vector}, to {row} (without it), or to the last query again: best first.
  search(newQuery) {
    query = newQuery ?? query;
    const [other, index] = query.vector ? [query.vector, 0] : [vectors, query.row];
    const best = [];
    for (let row = 0; row < lines.length; row++) {
      if (!ready[row] || row === query.row) continue;
      const score = dot(vectors, row, other, index, dimension);
      if (best.length === MAX_RESULTS && score <= best.at(-1).score) continue;
      const place = best.findIndex((result) => result.score < score);
      best.splice(place < 0 ? best.length : place, 0, { row, score });
      if (best.length > MAX_RESULTS) best.pop();
    }
    return best.map(({ row, score }) => ({ row, score, line: lines[row].line, text: lines[row].text.slice(0, MAX_CHARACTERS).toWellFormed() }));
  },
};

addEventListener("message", async ({ data: { id, method, argument } }) => {
  try {
    postMessage({ id, result: await methods[method](argument) });
  } catch ({ message, advice }) {
    postMessage({ id, error: message, advice });
  }
});
