// The similarities of all pairs as a table of coloured numbers.
import { announce, h, replace, uniqueId } from "../dom.js";
import { clusterOrder } from "../vectors.js";
import { eachInTasks } from "../tasks.js";
import { languageOf } from "./examples.js";

// "0.85", "−0.04"; no negative zero.
export const score = (value) => value.toFixed(2).replace(/^-0\.00$/, "0.00").replace("-", "−");

// The layout of long texts takes too long.
const MAX_TEXT = 200;
const shortened = (text) => (text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}…` : text);

// A line of the input, in its own direction.
export const lineText = (text) => h("bdi", { class: "line-text", lang: languageOf(text)?.tag ?? null }, shortened(text));

// The classes heat-0 to heat-20.
const STEPS = 20;

// Bodies outside the visible part need no layout, if there are many.
const ROWS_PER_BODY = 4;
const MANY_ROWS = 40;

export function heatmap({ texts, rows, matrix }) {
  const lines = texts.map((_, index) => index);
  const cells = [];
  // The slider at its start shows all pairs, also negative ones.
  let threshold = -Infinity;
  let building = new AbortController();

  const order = h("select", { id: uniqueId("order") },
    h("option", { value: "entered" }, "As entered"),
    h("option", { value: "clusters" }, "Similar lines together"),
    h("optgroup", { label: "By similarity to a line" }, texts.map((text, index) => h("option", { value: index }, `Like line ${index + 1}: ${text.slice(0, 60)}`))));
  const slider = h("input", { id: uniqueId("threshold"), type: "range", min: 0, max: 1, step: 0.01, value: 0 });
  const output = h("output", { for: slider.id, class: "number" });
  const detail = h("p", { class: "detail small muted" });
  // The roles are those of the elements: their CSS display is not that of a table, whose layout takes too long for 10,000 cells.
  const table = h("table", { role: "table", class: `heat${rows > MANY_ROWS ? " many" : ""}` });
  const scroll = h("div", { class: "scroll heat-scroll", tabindex: 0, role: "region", "aria-label": "Similarity of all pairs of lines" }, table);

  const value = (row, column) => matrix[row * rows + column];
  function sorted() {
    if (order.value === "entered") return lines;
    if (order.value === "clusters") return clusterOrder(matrix, rows);
    const first = Number(order.value);
    // A text that occurs twice has the similarity 1 to itself, too.
    return lines.toSorted((a, b) => (b === first) - (a === first) || value(first, b) - value(first, a));
  }

  const rowHeader = (row) => h("th", { scope: "row", role: "rowheader" },
    h("button", { type: "button", title: `Sort by similarity to: ${shortened(texts[row])}`, "aria-pressed": String(order.value === String(row)), onclick: () => sortBy(row) },
      h("span", { class: "line-number" }, row + 1), lineText(texts[row])));

  function dataCell(row, column) {
    const similarity = value(row, column);
    const cell = document.createElement("td");
    cell.textContent = score(similarity);
    cell.dataset.pair = `${row},${column}`;
    // Cells of one class share their style, which is faster than a style for each.
    cell.className = row === column ? "self" : `heat-${Math.min(Math.max(Math.round(similarity * STEPS), 0), STEPS)}`;
    cell.setAttribute("role", "cell");
    if (row === column) return cell;
    const shown = similarity >= threshold;
    if (!shown) cell.classList.add("below");
    cells.push({ cell, similarity, shown });
    return cell;
  }

  async function build() {
    building.abort();
    building = new AbortController();
    const { signal } = building;
    const columns = sorted();
    cells.length = 0;
    delete table.dataset.complete;
    table.style.setProperty("--lines", rows);
    replace(table,
      h("caption", { class: "visually-hidden" }, "Cosine similarity of each pair of lines, from −1 to 1"),
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, h("td", { role: "cell" }),
        columns.map((column) => h("th", { scope: "col", role: "columnheader", title: shortened(texts[column]) }, column + 1)))));
    let body;
    const done = await eachInTasks(columns, (row, index) => {
      if (index % ROWS_PER_BODY === 0) table.append((body = h("tbody", { role: "rowgroup" })));
      body.append(h("tr", { role: "row" }, rowHeader(row), columns.map((column) => dataCell(row, column))));
    }, signal);
    if (done) table.dataset.complete = "";
  }

  function sortBy(row) {
    order.value = row;
    build();
    scroll.scrollTo({ top: 0 });
    // The button was replaced; its line is the first one now.
    table.querySelector("tbody button").focus({ preventScroll: true });
    announce(`Sorted by similarity to line ${row + 1}`);
  }

  const pairs = (rows * (rows - 1)) / 2;
  function applyThreshold() {
    threshold = Number(slider.value) || -Infinity;
    for (const entry of cells) {
      const shown = entry.similarity >= threshold;
      if (shown === entry.shown) continue;
      entry.shown = shown;
      entry.cell.classList.toggle("below", !shown);
    }
    // The matrix is symmetric, and has 1 on its diagonal.
    const above = (matrix.filter((similarity) => similarity >= threshold).length - rows) / 2;
    output.textContent = above === pairs ? `all ${pairs} pairs` : `≥ ${score(threshold)}: ${above} of ${pairs} pairs`;
  }

  order.addEventListener("change", build);
  let frame = 0;
  slider.addEventListener("input", () => {
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      applyThreshold();
    });
  });
  slider.addEventListener("change", () => announce(output.textContent));

  const hint = "Point at a number to see its two lines. Choose a line to sort by it.";
  detail.textContent = hint;
  table.addEventListener("pointerover", ({ target }) => {
    const pair = target.closest("td[data-pair]")?.dataset.pair.split(",").map(Number);
    if (pair) replace(detail, h("strong", matrix[pair[0] * rows + pair[1]].toFixed(4)), ` ${pair[0] + 1}: `, lineText(texts[pair[0]]), ` · ${pair[1] + 1}: `, lineText(texts[pair[1]]));
  });
  table.addEventListener("pointerleave", () => (detail.textContent = hint));

  applyThreshold();
  build();
  return h("div", { class: "stack" },
    h("div", { class: "row heat-controls" },
      h("div", { class: "field" }, h("label", { for: order.id }, "Order"), order),
      h("div", { class: "field threshold" }, h("label", { for: slider.id }, "Threshold"), h("div", { class: "row" }, slider, output))),
    h("div", { class: "heat-frame" }, scroll),
    h("div", { class: "row between legend-row" }, detail, h("p", { class: "legend small muted", "aria-hidden": "true" }, "0", h("span"), "1")));
}
