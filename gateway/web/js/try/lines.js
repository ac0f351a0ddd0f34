// The texts of the view: lines that are not blank, from the text field or a file.

export const MAX_LINES = 100;
// A file of 100 long lines is far smaller.
const MAX_FILE_BYTES = 4 << 20;

// The lines that are not blank. JSON has no form for half a surrogate pair, which toWellFormed replaces.
export const linesOf = (text) => text.toWellFormed().split(/\r\n|[\n\r]/).filter((line) => line.trim() !== "");

// An error of the input, with advice as ApiError has it.
export class InputError extends Error {
  constructor(message, advice, lines = []) {
    super(message);
    this.advice = advice;
    this.lines = lines;
  }
}

export function checkLines(lines, source) {
  if (lines.length === 0) throw new InputError(`${source} has no text`, "Enter at least one line that is not blank.");
  if (lines.length > MAX_LINES) {
    throw new InputError(`${source} has ${lines.length.toLocaleString("en")} lines that are not blank, more than ${MAX_LINES}`, "Remove lines, or use Search for files of up to 50,000 lines.", lines);
  }
  return lines;
}

// Reads a text file in UTF-8.
export async function readLines(file) {
  const source = `The file “${file.name}”`;
  if (file.size > MAX_FILE_BYTES) throw new InputError(`${source} is larger than 4 MiB`, "Choose a smaller file, or use Search for files of up to 50,000 lines.");
  let text;
  try {
    // A folder cannot be read.
    text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    text = "\0";
  }
  if (text.includes("\0")) throw new InputError(`${source} is not UTF-8 text`, "Save it as a text file with the encoding UTF-8, and choose it again.");
  return checkLines(linesOf(text), source);
}
