// The similarities of all pairs as a table of coloured numbers.
import { announce, h, replace } from "../dom.js";
import { field, select } from "../manage/form.js";
import { clusterOrder } from "../vectors.js";
import { eachInTasks } from "../tasks.js";
import { languageOf } from "./examples.js";

// "0.85", "−0.04"; no negative zero.
export const score = (value) => value.toFixed(2).replace(/^-0\.00$/, "0.00").replace("-", "−");

// The layout of long texts takes too long.
const MAX_TEXT = 200;
const shortened = (text) => (text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text);

// A line of the input with its number, in its own direction.
export const numberedLine = (text, index) => h("div", { class: "numbered", title: shortened(text) },
  h("span", { class: "line-number" }, index + 1), h("bdi", { class: "line-text", lang: languageOf(text) }, shortened(text)));

// The classes heat-0 to heat-20: cells of one class share their style, which is faster than a style for each. The share of the
// colour is the square of the similarity, which tells high ones apart.
const STEPS = 20;
const colours = new CSSStyleSheet();
for (let step = 0; step <= STEPS; step++) colours.insertRule(`.heat-${step} { --share: ${100 * (step / STEPS) ** 2}%; }`);
document.adoptedStyleSheets.push(colours);

// Bodies outside the visible part need no layout, if there are many.
const ROWS_PER_BODY = 4;
const MANY_ROWS = 40;

export function heatmap({ texts, rows, matrix }) {
  const lines = texts.map((_, index) => index);
  let cells = [];
  // The slider at its start shows all pairs, also negative ones.
  let threshold = -Infinity;
  let building = new AbortController();

  const order = select({ onchange: () => build() }, [
    ["entered", "As entered"],
    ["clusters", "Similar lines together"],
    ...texts.map((text, index) => [index, `Like line ${index + 1}: ${text.slice(0, 60)}`]),
  ]);
  const output = h("output", { class: "small number" });
  const slider = h("input", {
    type: "range", min: 0, max: 1, step: 0.01, value: 0,
    oninput: () => applyThreshold(),
    onchange: () => announce(output.textContent),
  });
  // The roles are those of the elements: their CSS display is not that of a table, whose layout takes too long for 10,000 cells.
  const table = h("table", { role: "table", class: `heat${rows > MANY_ROWS ? " many" : ""}`, style: { "--lines": rows } });

  const value = (row, column) => matrix[row * rows + column];
  function sorted() {
    if (order.value === "entered") return lines;
    if (order.value === "clusters") return clusterOrder(matrix, rows);
    const first = Number(order.value);
    // A text that occurs twice has the similarity 1 to itself, too.
    return lines.toSorted((a, b) => (b === first) - (a === first) || value(first, b) - value(first, a));
  }

  function dataCell(row, column) {
    const similarity = value(row, column);
    const step = Math.max(Math.round(similarity * STEPS), 0);
    const cell = h("td", { role: "cell", class: row === column ? "self" : `heat-${step}` }, score(similarity));
    if (row !== column) {
      cell.classList.toggle("below", similarity < threshold);
      cells.push({ cell, similarity });
    }
    return cell;
  }

  async function build() {
    building.abort();
    building = new AbortController();
    const columns = sorted();
    cells = [];
    delete table.dataset.complete;
    replace(table,
      h("caption", { class: "visually-hidden" }, "Cosine similarity of each pair of lines, from −1 to 1"),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, h("td", { role: "cell" }),
        columns.map((column) => h("th", { scope: "col", role: "columnheader", title: shortened(texts[column]) }, column + 1)))));
    let body;
    const done = await eachInTasks(columns, (row, index) => {
      if (index % ROWS_PER_BODY === 0) table.append((body = h("tbody", { role: "rowgroup" })));
      body.append(h("tr", { role: "row" },
        h("th", { scope: "row", role: "rowheader" }, numberedLine(texts[row], row)),
        columns.map((column) => dataCell(row, column))));
    }, building.signal);
    if (done) table.dataset.complete = "";
  }

  function applyThreshold() {
    threshold = Number(slider.value) || -Infinity;
    for (const { cell, similarity } of cells) cell.classList.toggle("below", similarity < threshold);
    // The matrix is symmetric, and has 1 on its diagonal.
    const above = (matrix.filter((similarity) => similarity >= threshold).length - rows) / 2;
    const pairs = (rows * (rows - 1)) / 2;
    output.textContent = above === pairs ? `all ${pairs} pairs` : `≥ ${score(threshold)}: ${above} of ${pairs} pairs`;
  }

  applyThreshold();
  build();
  return h("div", { class: "stack" },
    h("div", { class: "row heat-controls" }, field("Order", order), field("Threshold", slider), output),
    h("p", { class: "small muted" }, "Cosine similarity of each pair: near 1 is the same meaning, near 0 is unrelated. Pairs below the threshold lose their colour."),
    h("div", { class: "heat-frame" },
      h("div", { class: "scroll heat-scroll", tabindex: 0, role: "region", "aria-label": "Similarity of all pairs of lines" }, table)));
}
