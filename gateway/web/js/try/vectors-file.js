// Vectors as text.
import { csvLine } from "../manage/csv.js";
import { nextTask } from "../tasks.js";

// Nine digits are exact for a float32.
const decimal = (value) => Number(value.toPrecision(9));

async function rowsOf({ rows, dimension, vectors }, line) {
  const texts = [];
  for (let row = 0; row < rows; row++) {
    texts.push(line(Array.from(vectors.subarray(row * dimension, (row + 1) * dimension), decimal), row));
    if (row % 16 === 15) await nextTask();
  }
  return texts;
}

// A JSON array of arrays.
export const toJson = async (result) => `[${(await rowsOf(result, (numbers) => `[${numbers.join(",")}]`)).join(",\n")}]\n`;

// A header, then the text and the components of each line.
export async function toCsv(result) {
  const header = csvLine(["text", ...Array.from({ length: result.dimension }, (_, index) => `v${index}`)]);
  // Only texts need quotes; to csvLine a negative number could be a formula.
  return [header, ...(await rowsOf(result, (numbers, row) => `${csvLine([result.texts[row]]).slice(0, -2)},${numbers.join(",")}\r\n`))];
}
