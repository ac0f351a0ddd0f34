// A bar chart over days: bars in SVG, axes in HTML (so that text does not scale with the bars), and
// a transparent range input on top, through which keyboard, touch and screen readers select a bar.
import { h, number, replace } from "./dom.js";

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

// `bars` are {label, value}, at least one; `unit` is that of a value, such as "tokens".
export function barChart({ title, unit, bars }) {
  const values = bars.map((bar) => bar.value);
  const highest = Math.max(...values);
  const total = values.reduce((sum, value) => sum + value);
  const top = axisMaximum(highest);
  const last = bars.length - 1;
  const describe = (at) => `${bars[at].label}: ${number(values[at])} ${unit}`;
  const most = total === 0 ? "" : `, most on ${describe(values.indexOf(highest))}`;

  const rects = values.map((value, at) => {
    const height = (value / top) * 100;
    return h("svg:rect", { x: at + 0.12, y: 100 - height, width: 0.76, height });
  });
  const grid = [0, 50, 100].map((y) => h("svg:line", { x1: 0, x2: bars.length, y1: y, y2: y }));
  const svg = h("svg:svg", {
    role: "img", "aria-label": `${title}: ${number(total)} ${unit} in total${most}.`, viewBox: `0 0 ${bars.length} 100`, preserveAspectRatio: "none",
  }, grid, rects);

  const value = h("p", { class: "muted", "aria-hidden": "true" }, "Select a bar to see its value.");
  let selected = last;
  const select = (at) => {
    rects[selected].classList.remove("selected");
    rects[at].classList.add("selected");
    selected = at;
    replace(value, describe(at));
  };
  const cursor = h("input", { type: "range", min: 0, max: last, value: last, "aria-label": `Value of a bar: ${title}`, "aria-valuetext": describe(last) });
  cursor.addEventListener("input", () => {
    const at = Number(cursor.value);
    cursor.ariaValueText = describe(at);
    select(at);
  });
  cursor.addEventListener("focus", () => select(Number(cursor.value)));
  cursor.addEventListener("pointermove", ({ offsetX }) => {
    select(Math.min(Math.max(Math.floor((offsetX / cursor.clientWidth) * bars.length), 0), last));
  });

  const dates = [...new Set([0, Math.floor(last / 2), last])];
  return h("figure", { class: "chart" },
    h("figcaption", title, value),
    h("div", { class: "chart-y", "aria-hidden": "true" }, [top, top / 2, 0].map((tick) => h("span", compact.format(tick)))),
    h("div", { class: "chart-plot" }, svg, cursor),
    h("div", { class: "chart-x", "aria-hidden": "true" }, dates.map((at) => h("span", bars[at].label))));
}

// A round number that is at least `value`, and at least 2.
function axisMaximum(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return Math.max(2, [1, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((limit) => limit >= value));
}
