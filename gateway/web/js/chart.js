// A bar chart over days: bars in SVG, axes in HTML (so that text does not scale with the bars), and
// a transparent range input on top, through which keyboard, touch and screen readers select a bar.
import { h, number, replace } from "./dom.js";

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

// `bars` are {label, value}, at least one; `unit` is that of a value, such as "tokens".
export function barChart({ title, unit, bars }) {
  const highest = bars.reduce((best, bar, at) => (bar.value > bars[best].value ? at : best), 0);
  const total = bars.reduce((sum, bar) => sum + bar.value, 0);
  const top = axisMaximum(bars[highest].value);
  const describe = (bar) => `${bar.label}: ${number(bar.value)} ${unit}`;
  const summary = total === 0
    ? `${title}: no ${unit}.`
    : `${title}: ${number(total)} ${unit} in total, most on ${describe(bars[highest])}.`;

  const rects = bars.map(({ value }, at) => {
    const height = (value / top) * 100;
    return h("svg:rect", { x: at + 0.12, y: 100 - height, width: 0.76, height });
  });
  const grid = [0, 50, 100].map((y) => h("svg:line", { x1: 0, x2: bars.length, y1: y, y2: y }));
  const svg = h("svg:svg", {
    role: "img", "aria-label": summary, viewBox: `0 0 ${bars.length} 100`, preserveAspectRatio: "none",
  }, grid, rects);

  const value = h("p", { class: "chart-value muted", "aria-hidden": "true" });
  let selected = -1;
  const select = (at) => {
    rects[selected]?.classList.remove("selected");
    selected = at;
    rects[at]?.classList.add("selected");
    replace(value, rects[at] ? describe(bars[at]) : total === 0 ? `No ${unit}` : "Select a bar to see its value.");
  };
  const cursor = h("input", {
    type: "range", min: 0, max: bars.length - 1, step: 1, value: bars.length - 1, "aria-label": `Value of a bar: ${title}`,
    "aria-valuetext": describe(bars.at(-1)),
    oninput: () => {
      const at = Number(cursor.value);
      cursor.setAttribute("aria-valuetext", describe(bars[at]));
      select(at);
    },
    onfocus: () => select(Number(cursor.value)),
    onblur: () => select(-1),
  });
  const plot = h("div", {
    class: "chart-plot",
    onpointermove: (event) => {
      const box = plot.getBoundingClientRect();
      const at = Math.floor(((event.clientX - box.left) / box.width) * bars.length);
      select(Math.min(Math.max(at, 0), bars.length - 1));
    },
    onpointerleave: () => select(document.activeElement === cursor ? Number(cursor.value) : -1),
  }, svg, cursor);
  select(-1);

  const dates = [...new Set([0, Math.floor((bars.length - 1) / 2), bars.length - 1])];
  return h("figure", { class: "chart" },
    h("figcaption", title, value),
    h("div", { class: "chart-y", "aria-hidden": "true" }, [top, top / 2, 0].map((tick) => h("span", compact.format(tick)))),
    plot,
    h("div", { class: "chart-x", "aria-hidden": "true" }, dates.map((at) => h("span", bars[at].label))));
}

// A round number that is at least `value`, and at least 2.
function axisMaximum(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return Math.max(2, [1, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((limit) => limit >= value));
}
