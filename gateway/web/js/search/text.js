// Decodes text files and splits them into lines.

// A text that cannot be searched: the cause, and what the user can do.
export class TextError extends Error {
  constructor(message, advice) {
    super(message);
    this.advice = advice;
  }
}

// Decodes UTF-8 with or without a byte order mark, and UTF-16 with one.
export function decodeText(bytes) {
  const mark = (bytes[0] << 8) | bytes[1];
  const encoding = { 0xfffe: "utf-16le", 0xfeff: "utf-16be" }[mark] ?? "utf-8";
  try {
    const text = new TextDecoder(encoding, { fatal: true }).decode(bytes);
    if (!text.includes("\0")) return text;
  } catch {
    // Like a text with NUL bytes.
  }
  throw new TextError("The file is not plain text", "Save it as plain text in UTF-8, or in UTF-16 with a byte order mark.");
}

// The lines that are not blank, with their numbers: [{line, text}].
export function splitLines(text) {
  const lines = text.split(/\r\n|\r|\n/).map((line, index) => ({ line: index + 1, text: line.trim() })).filter((line) => line.text);
  if (!lines.length) throw new TextError("There are no lines with text", "Choose another file, or paste lines.");
  return lines;
}
