// Module worker with the lines and their vectors: reading files, parsing responses and comparing vectors must not block
// the page. Requests are {id, method, argument}; responses {id, result}, or {id, error, advice}.
import { readNpy } from "../npy.js";
import { decodeText, splitLines, TextError } from "./text.js";
import { topRows } from "./top.js";

const MAX_FILE_BYTES = 64 * 1024 * 1024;
// Longest text of a result.
const MAX_CHARACTERS = 600;

const encoder = new TextEncoder();
// What splitLines returns; the vectors of all rows, and which rows have theirs; the next row to embed; the last query.
let lines, vectors, ready, dimension, query;
let next = 0;

const describe = (row) => {
  const text = lines.texts[row];
  const isLong = text.length > MAX_CHARACTERS;
  return { row, line: lines.firstLines[row], count: lines.counts[row], text: isLong ? `${text.slice(0, MAX_CHARACTERS)}…` : text };
};
const vector = (row) => vectors.subarray(row * dimension, (row + 1) * dimension);

const methods = {
  // Reads a file or a string; returns the numbers of lines.
  async load({ source, limit }) {
    if (source.size > MAX_FILE_BYTES) throw new TextError("The file has more than 64 MiB", "Split it.");
    const isFile = source instanceof Blob;
    const { text, encoding } = isFile ? decodeText(new Uint8Array(await source.arrayBuffer())) : { text: source };
    lines = splitLines(text, limit);
    return { encoding, lines: lines.lines, blank: lines.blank, used: lines.used, rows: lines.texts.length };
  },

  // Allocates the vectors of all rows.
  allocate(width) {
    const rows = lines.texts.length;
    try {
      vectors = new Float32Array(rows * width);
    } catch {
      throw new TextError("The browser has not enough memory for the vectors", "Close other tabs, or load fewer lines.");
    }
    ready = new Uint8Array(rows);
    dimension = width;
  },

  // The next batch of at most `maxLines` rows and, if there are several, `maxBytes` of UTF-8; null after the last one.
  // Lines of more than `maxLineBytes` are skipped.
  take({ maxLines, maxBytes, maxLineBytes }) {
    const rows = [], texts = [], skipped = [];
    for (let sum = 0; next < lines.texts.length && rows.length < maxLines; next++) {
      const text = lines.texts[next];
      const size = encoder.encode(text).length;
      if (size > maxLineBytes) {
        skipped.push({ ...describe(next), reason: `${size} bytes; the limit is ${maxLineBytes} a sentence` });
        continue;
      }
      sum += size;
      if (rows.length && sum > maxBytes) break;
      rows.push(next);
      texts.push(text);
    }
    return { batch: rows.length ? { rows, texts } : null, skipped };
  },

  // Stores the vectors of rows.
  store({ rows, npy }) {
    const { shape, data } = readNpy(npy);
    if (shape[0] !== rows.length || shape[1] !== dimension) throw new Error(`The shape of the vectors is ${shape}`);
    rows.forEach((row, i) => {
      vector(row).set(data.subarray(i * dimension, (i + 1) * dimension));
      ready[row] = 1;
    });
  },

  describe,

  // The best rows for a vector, for that of a row (without the row itself), or for the last query again.
  search(argument) {
    if (argument.vector) query = argument;
    else if (argument.row !== undefined) query = { ...argument, vector: vector(argument.row) };
    return topRows(vectors, ready, query.vector, query.count, query.row).map(({ row, score }) => ({ score, ...describe(row) }));
  },
};

addEventListener("message", async ({ data: { id, method, argument } }) => {
  try {
    postMessage({ id, result: await methods[method](argument) });
  } catch ({ message, advice }) {
    postMessage({ id, error: message, advice });
  }
});
