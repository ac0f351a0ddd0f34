// The texts of the view: lines that are not blank, from the text field or a file.
import { decodeText, TextError } from "../search/text.js";

export const MAX_LINES = 100;
// A file of 100 long lines is far smaller.
const MAX_FILE_BYTES = 4 << 20;
const USE_SEARCH = "use Search for files of up to 50,000 lines.";

// The lines that are not blank. JSON has no form for half a surrogate pair, which toWellFormed replaces.
export const linesOf = (text) => text.toWellFormed().split(/\r\n|[\n\r]/).filter((line) => line.trim() !== "");

export function checkLines(lines) {
  if (lines.length === 0) throw new TextError("There is no text", "Enter at least one line that is not blank.");
  if (lines.length > MAX_LINES) {
    const error = new TextError(`There are more than ${MAX_LINES} lines that are not blank`, `Remove lines, or ${USE_SEARCH}`);
    throw Object.assign(error, { lines });
  }
  return lines;
}

// The lines of a text file.
export async function readLines(file) {
  try {
    if (file.size > MAX_FILE_BYTES) throw new TextError("It is larger than 4 MiB", `Choose a smaller file, or ${USE_SEARCH}`);
    return linesOf(decodeText(new Uint8Array(await file.arrayBuffer())));
  } catch (error) {
    // A folder cannot be read.
    throw new TextError(`The file “${file.name}” was not loaded. ${error.message}`, error.advice ?? "Choose a text file.");
  }
}
