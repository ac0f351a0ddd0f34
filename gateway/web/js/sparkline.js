// A sparkline: the course of one number as a small SVG, with its current value and a summary in words.
import { h, replace } from "./dom.js";

const WIDTH = 240;
const HEIGHT = 44;

// The path of a line through the points. A point without a value interrupts it; a single point is drawn as a dot.
function linePath(points, x, y) {
  let path = "";
  let drawing = false;
  for (const point of points) {
    if (point.value === null) {
      drawing = false;
      continue;
    }
    path += drawing ? `L${x(point)} ${y(point)}` : `M${x(point)} ${y(point)}h.01`;
    drawing = true;
  }
  return path;
}

function barsPath(points, x, y) {
  return points.filter((point) => point.value > 0).map((point) => `M${x(point)} ${HEIGHT}V${y(point)}`).join("");
}

/**
 * Returns `{element, update(points, from, to)}`. Points are `{at, value}`, oldest first; `at`, `from` and `to` are seconds;
 * `value` is null if there was nothing to measure. `format` turns a value into text. `bars` are for rare events.
 */
export function sparkline({ title, hint, format, bars = false }) {
  const path = h("svg:path", { d: "", "vector-effect": "non-scaling-stroke" });
  const image = h(
    "svg:svg",
    { class: bars ? "spark bars" : "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    path,
  );
  const current = h("p", { class: "spark-value" });
  const range = h("p", { class: "muted small" });
  const element = h("div", { class: "spark-figure" }, h("h4", { title: hint }, title), current, image, range);

  function update(points, from, to) {
    const values = points.map((point) => point.value).filter((value) => value !== null);
    const highest = Math.max(0, ...values);
    const x = (point) => (((point.at - from) / (to - from)) * WIDTH).toFixed(1);
    const y = (point) => (HEIGHT - 2 - (point.value / (highest || 1)) * (HEIGHT - 4)).toFixed(1);
    path.setAttribute("d", bars ? barsPath(points, x, y) : linePath(points, x, y));
    const last = points.at(-1)?.value ?? null;
    replace(current, last === null ? "–" : format(last));
    if (values.length === 0) {
      replace(range, "no requests");
      image.setAttribute("aria-label", `${title}, last 10 minutes: no requests`);
      return;
    }
    const total = values.reduce((sum, value) => sum + value, 0);
    replace(range, bars ? `${format(total)} in 10 minutes` : `highest ${format(highest)}`);
    const summary = bars ? `${format(total)} in total` : `lowest ${format(Math.min(...values))}, highest ${format(highest)}`;
    image.setAttribute("aria-label", `${title}, last 10 minutes: now ${last === null ? "no requests" : format(last)}, ${summary}`);
  }

  return { element, update };
}
