// A sparkline: the course of one number as a small SVG, with its current value and a summary in words.
import { h, replace } from "./dom.js";

const WIDTH = 240;
const HEIGHT = 44;

// A point without a value interrupts the line; a single point is a dot.
function linePath(points, x, y) {
  let path = "";
  points.forEach((point, at) => {
    if (point.value === null) return;
    path += (points[at - 1]?.value ?? null) === null ? `M${x(point)} ${y(point)}h.01` : `L${x(point)} ${y(point)}`;
  });
  return path;
}

const barsPath = (points, x, y) => points.filter(({ value }) => value > 0).map((point) => `M${x(point)} ${HEIGHT}V${y(point)}`).join("");

// Returns {element, update(points, from, to)}. Points are {at, value}, oldest first; `at`, `from` and `to` are seconds; `value` is
// null if there was nothing to measure. `format` turns a value into text. `bars` are for counts of rare events.
export function sparkline({ title, format, bars = false }) {
  const path = h("svg:path", { "vector-effect": "non-scaling-stroke" });
  const image = h("svg:svg", { class: bars ? "spark bars" : "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, path);
  const current = h("p", { class: "spark-value" });
  const range = h("p", { class: "muted small" });

  function summary(values) {
    if (values.length === 0) return "no requests";
    if (bars) return `${format(values.reduce((sum, value) => sum + value, 0))} in 10 minutes`;
    return `highest ${format(Math.max(...values))}`;
  }

  function update(points, from, to) {
    const values = points.map(({ value }) => value).filter((value) => value !== null);
    const highest = Math.max(0, ...values) || 1;
    const x = ({ at }) => (((at - from) / (to - from)) * WIDTH).toFixed(1);
    const y = ({ value }) => (HEIGHT - 2 - (value / highest) * (HEIGHT - 4)).toFixed(1);
    path.setAttribute("d", (bars ? barsPath : linePath)(points, x, y));
    const last = points.at(-1)?.value ?? null;
    const now = last === null ? "–" : format(last);
    replace(current, now);
    replace(range, summary(values));
    image.setAttribute("aria-label", `${title}, last 10 minutes: now ${last === null ? "no requests" : now}, ${summary(values)}`);
  }

  return { element: h("div", { class: "spark-figure" }, h("h4", title), current, image, range), update };
}
