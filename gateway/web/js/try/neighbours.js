// The nearest neighbour of each line.
import { h } from "../dom.js";
import { nearestNeighbours } from "../vectors.js";
import { numberedLine, score } from "./heatmap.js";

export function neighbours({ texts, rows, matrix }) {
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Nearest neighbours" },
    h("table", { class: "neighbours" },
      h("thead", h("tr", h("th", { scope: "col" }, "Line"), h("th", { scope: "col" }, "Nearest neighbour"), h("th", { scope: "col", class: "number" }, "Similarity"))),
      h("tbody", nearestNeighbours(matrix, rows).map(({ index, score: similarity }, row) => h("tr",
        h("th", { scope: "row" }, numberedLine(texts[row], row)),
        h("td", numberedLine(texts[index], index)),
        h("td", { class: "number" }, score(similarity)))))));
}
