// A sparkline: the course of one number as a small SVG, with its current and its highest value as text.
import { h, replace } from "./dom.js";

const WIDTH = 240;
const HEIGHT = 44;

// Returns {element, update(points, from, to)}. Points are {at, value}, oldest first; `at`, `from` and `to` are seconds; `value` is
// null if there was nothing to measure. `format` turns a value into text.
export function sparkline({ title, format }) {
  const path = h("svg:path", { "vector-effect": "non-scaling-stroke" });
  const image = h("svg:svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, path);
  const current = h("p", { class: "spark-value" });
  const range = h("p", { class: "muted small" });

  function update(points, from, to) {
    const values = points.map(({ value }) => value).filter((value) => value !== null);
    const highest = Math.max(0, ...values);
    // The line connects the points with a value; a single point is a dot.
    let line = "";
    for (const { at, value } of points) {
      if (value === null) continue;
      const x = (((at - from) / (to - from)) * WIDTH).toFixed(1);
      const y = (HEIGHT - 2 - (value / (highest || 1)) * (HEIGHT - 4)).toFixed(1);
      line += line ? `L${x} ${y}` : `M${x} ${y}h.01`;
    }
    path.setAttribute("d", line);
    const last = points.at(-1)?.value ?? null;
    replace(current, last === null ? "idle" : format(last));
    replace(range, values.length ? `highest ${format(highest)}` : "no requests");
    image.setAttribute("aria-label", `${title}, last 10 minutes: now ${current.textContent}, ${range.textContent}`);
  }

  return { element: h("div", h("h4", { class: "muted small" }, title), current, image, range), update };
}
