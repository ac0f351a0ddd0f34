// Usage: chart by day, totals, table by user and API key, CSV.
import { call } from "../api.js";
import { barChart } from "../chart.js";
import { download, errorBox, h, number, replace } from "../dom.js";
import { addDays, today } from "../manage/days.js";
import { field, select } from "../manage/form.js";
import { quotaState } from "../manage/quota.js";
import { explainName, scopeFilter } from "../manage/scope.js";
import { name, pagedTable, table } from "../manage/table.js";
import { METRICS, bars, keyNames, total, unitOf, usageByDay, usageCsv } from "../manage/usage-data.js";
import { session } from "../session.js";

const RANGES = [["7", "Last 7 days"], ["30", "Last 30 days"], ["90", "Last 90 days"], ["custom", "Custom"]];

// The columns of the counts.
const counts = Object.entries(METRICS).map(([id, title]) => ({ title, class: "number", cell: (row) => number(row[id]) }));

let refresh;

function create() {
  let loading = new AbortController();
  let days = [];
  let names = new Map();
  // What is displayed; the CSV file has the same.
  let query;

  const changed = () => { byKey.clear(); load(); };
  const scope = scopeFilter("all", changed);
  const from = h("input", { type: "date", required: true, onchange: () => changed() });
  const to = h("input", { type: "date", required: true, onchange: () => changed() });
  const custom = [field("From (UTC)", from), field("To (UTC)", to)];
  const range = select({ onchange: () => { setRange(); changed(); } }, RANGES, "30");
  function setRange() {
    for (const element of custom) element.hidden = range.value !== "custom";
    if (range.value === "custom") return;
    to.value = today();
    from.value = addDays(to.value, 1 - Number(range.value));
  }

  const metric = h("fieldset", { class: "metrics" },
    h("legend", { class: "visually-hidden" }, "Chart and daily values"),
    Object.entries(METRICS).map(([id, label]) => {
      const count = h("strong", "–");
      return h("label", { class: "metric" },
        h("input", { type: "radio", name: "metric", value: id, checked: id === "tokens", onchange: () => draw() }),
        h("span", label), count);
    }));

  const [quota, problem, chart, daily] = Array.from({ length: 4 }, () => h("div"));
  const results = h("div", { class: "card stack" }, metric, chart, h("details", h("summary", "Values by day"), daily));
  const csv = h("button", { type: "button", onclick: () => saveCsv() }, "Download CSV");

  function draw() {
    const selected = metric.querySelector(":checked").value;
    for (const input of metric.querySelectorAll("input")) {
      replace(input.parentElement.querySelector("strong"), number(total(days, input.value)));
    }
    const { unit, bars: values } = bars(days, selected);
    replace(chart, barChart({ title: `${METRICS[selected]} by ${unit} (UTC)`, unit: unitOf(selected), bars: values }));
    replace(daily, table("Usage by day", [{ title: "Day (UTC)", cell: ({ day }) => h("span", { class: "nowrap" }, day) }, ...counts], days.toReversed()));
  }

  const byKey = pagedTable({
    label: "Usage by user and API key",
    columns: () => [
      { title: "User", cell: ({ user }) => name(user) },
      { title: "API key", cell: ({ key_id: key }) => (key === null ? h("span", { class: "muted" }, "access token") : names.has(key) ? [name(names.get(key)), h("code", { class: "muted" }, key)] : h("code", key)) },
      ...counts,
    ],
    id: (row) => `${row.key_id ?? ""} ${row.user}`,
    load: async (page, signal) => {
      const { usage, next } = await call("api/usage", { query: { ...query, by: "key", ...page }, signal });
      return { items: usage, next };
    },
    empty: () => h("div", { class: "empty" },
      h("h3", "No calls in this period"),
      h("p", "Usage appears here some seconds after a call to embed or tokenize. Try the model in the view Try it, or create an API key for your program.")),
  });

  async function load() {
    if (!from.reportValidity() || !to.reportValidity()) return;
    // Today changes at midnight (UTC), also while the page is open.
    setRange();
    loading.abort();
    const { signal } = loading = new AbortController();
    replace(problem);
    chart.setAttribute("aria-busy", "true");
    const { mine, user } = scope.value();
    const owner = mine ? session.user.username : user;
    query = { from: from.value, to: to.value, user: owner };
    try {
      if (from.value > to.value) throw Object.assign(new Error("The first day is after the last one"), { advice: "Choose another period." });
      const keys = mine ? {} : user ? { user } : { all: true };
      [days, names] = await Promise.all([usageByDay(query, signal), keyNames(keys, signal)]);
      if (signal.aborted) return;
      draw();
      results.hidden = false;
      await byKey.reload();
    } catch (error) {
      if (signal.aborted) return;
      if (error.isUnauthenticated) session.restored(signal).then(load, () => {});
      // What is displayed is that of another filter.
      results.hidden = true;
      replace(problem, errorBox(explainName(error)));
    } finally {
      if (!signal.aborted) chart.removeAttribute("aria-busy");
    }
  }

  async function showQuota() {
    try {
      const user = await call("api/user");
      replace(quota, user.quota ? h("div", { class: "card stack tight" }, h("h3", "Your quota"), await quotaState(user)) : null);
    } catch (error) {
      replace(quota, errorBox(error));
    }
  }

  async function saveCsv() {
    if (csv.hasAttribute("aria-disabled")) return;
    csv.setAttribute("aria-disabled", "true");
    replace(problem);
    try {
      const parts = await usageCsv(query, names, (rows) => replace(csv, `${number(rows)} rows…`));
      download(`muse-usage-${query.from}-to-${query.to}.csv`, "text/csv;charset=utf-8", parts);
    } catch (error) {
      replace(problem, errorBox(error));
    } finally {
      replace(csv, "Download CSV");
      csv.removeAttribute("aria-disabled");
    }
  }

  setRange();
  refresh = () => Promise.all([load(), showQuota()]);
  return h("section", { "aria-labelledby": "usage-title" },
    h("div", { class: "view-head" }, h("h2", { id: "usage-title" }, "Usage"), csv),
    h("div", { class: "row filters" }, scope.element, field("Period", range), custom),
    quota, problem,
    results, h("h3", "By user and API key"), byKey.element);
}

export default { id: "usage", title: "Usage", admin: false, create, shown: () => refresh() };
