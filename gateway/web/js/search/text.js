// Decodes text files and splits them into lines.

// A text that cannot be searched: the cause, and what the user can do.
export class TextError extends Error {
  constructor(message, advice) {
    super(message);
    this.advice = advice;
  }
}

const ADVICE = "Save it as plain text in UTF-8, or in UTF-16 with a byte order mark.";

// Decodes UTF-8 with or without a byte order mark, and UTF-16 with one; anything else is a TextError.
export function decodeText(bytes) {
  const mark = (bytes[0] << 8) | bytes[1];
  const encoding = { 0xfffe: "utf-16le", 0xfeff: "utf-16be" }[mark] ?? "utf-8";
  const name = encoding.slice(0, 6).toUpperCase();
  const text = new TextDecoder(encoding).decode(bytes);
  if (text.includes("\0")) throw new TextError("The file has NUL bytes: it is not text", ADVICE);
  const replaced = text.indexOf("\ufffd");
  if (replaced >= 0) {
    try {
      new TextDecoder(encoding, { fatal: true }).decode(bytes);
    } catch {
      throw new TextError(`Line ${text.slice(0, replaced).split(/\r\n|\r|\n/).length} is not valid ${name}`, ADVICE);
    }
  }
  return { text, encoding: name };
}

// Splits text at LF, CRLF and CR into rows: different lines that are not blank, without surrounding white space, from
// the first `limit` lines that are not blank. Returns the texts of the rows, the number of the first line of each, how
// many lines each stands for, and the numbers of lines: `lines` in total, `blank`, `used` for rows.
export function splitLines(text, limit) {
  const rows = new Map(), texts = [], firstLines = [], counts = [];
  let lines = 0, blank = 0, used = 0, start = 0;
  const add = (line) => {
    lines++;
    const trimmed = line.trim();
    if (!trimmed) return blank++;
    if (used === limit) return;
    used++;
    const row = rows.get(trimmed);
    if (row !== undefined) return counts[row]++;
    rows.set(trimmed, texts.length);
    texts.push(trimmed);
    firstLines.push(lines);
    counts.push(1);
  };
  for (const { 0: end, index } of text.matchAll(/\r\n|\r|\n/g)) {
    add(text.slice(start, index));
    start = index + end.length;
  }
  if (start < text.length) add(text.slice(start));
  if (!texts.length) throw new TextError("There are no lines with text", "Choose another file, or paste lines.");
  return { texts, firstLines, counts, lines, blank, used };
}
