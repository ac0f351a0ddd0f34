// The nearest neighbour of each line.
import { h } from "../dom.js";
import { nearestNeighbours } from "../vectors.js";
import { lineText, score } from "./heatmap.js";

export function neighbours({ texts, rows, matrix }) {
  const numbered = (index) => h("span", { class: "numbered" }, h("span", { class: "line-number" }, index + 1), lineText(texts[index]));
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Nearest neighbours" },
    h("table", { class: "neighbours" },
      h("thead", h("tr", h("th", { scope: "col" }, "Line"), h("th", { scope: "col" }, "Nearest neighbour"), h("th", { scope: "col", class: "number" }, "Similarity"))),
      h("tbody", nearestNeighbours(matrix, rows).map((nearest, row) => h("tr",
        h("th", { scope: "row" }, numbered(row)),
        h("td", numbered(nearest.index)),
        h("td", { class: "number" }, score(nearest.score)))))));
}
