// Usage: chart by day, totals, table by user and API key, CSV.
import { barChart } from "../chart.js";
import { download, errorBox, h, number, replace } from "../dom.js";
import { field, runOnce } from "../manage/form.js";
import { scopeFilter } from "../manage/scope.js";
import { name, pagedTable } from "../manage/table.js";
import { MAX_NAMES, METRICS, daysAgo, keyNames, total, usageByDay, usageCsv } from "../manage/usage-data.js";
import { session } from "../session.js";

const COUNTS = Object.entries(METRICS).map(([id, title]) => ({ title, class: "number", cell: (row) => number(row[id]) }));

// More bars than the service stores days by default.
const MAX_DAYS = 1100;
const daysBetween = (from, to) => (Date.parse(to) - Date.parse(from)) / 86_400_000;

let load;

function create() {
  let loading = new AbortController();
  let names = new Map();
  // What is displayed; the CSV file has the same.
  let query;

  const changed = () => load();
  const scope = scopeFilter("all", changed);
  // While a year is typed, its first digits are years before 1970.
  const from = h("input", { type: "date", required: true, min: "1970-01-01", value: daysAgo(29), onchange: changed });
  const to = h("input", { type: "date", required: true, value: daysAgo(0), onchange: changed });

  const problem = h("div");
  const chart = h("div");
  const csv = h("button", { onclick: () => runOnce(csv, problem, saveCsv) }, "Download CSV");
  const results = h("div", { class: "card stack" });

  function show(days) {
    const draw = (metric) => replace(chart, barChart({
      title: `${METRICS[metric]} by day (UTC)`,
      unit: metric === "refused" ? "rejected requests" : metric,
      bars: days.map((row) => ({ label: row.day, value: row[metric] })),
    }));
    const selected = results.querySelector(":checked")?.value ?? "tokens";
    const metrics = Object.entries(METRICS).map(([id, label]) => h("label", { class: "metric" },
      h("input", { type: "radio", name: "metric", value: id, checked: id === selected, onchange: () => draw(id) }),
      h("span", label), h("strong", number(total(days, id)))));
    draw(selected);
    replace(results, h("fieldset", { class: "metrics" }, h("legend", { class: "visually-hidden" }, "Chart"), metrics), chart);
  }

  function keyCell({ key_id: key }) {
    if (key === null) return h("span", { class: "muted" }, "no key (login)");
    const isDeleted = !names.has(key) && names.size < MAX_NAMES;
    return [names.has(key) && name(names.get(key)), isDeleted && h("span", "deleted key"), h("code", { class: "muted" }, key)];
  }
  const byKey = pagedTable({
    label: "Usage by user and API key", list: "usage",
    columns: [{ title: "User", cell: ({ user }) => name(user) }, { title: "API key", cell: keyCell }, ...COUNTS],
    query: () => ({ ...query, by: "key" }),
    empty: () => h("div", { class: "empty" },
      h("h3", "No requests in this period"),
      h("p", "Usage appears here some seconds after a request to embed or tokenize. Try the model in the view Try it.")),
  });
  const byUser = h("div", { class: "stack" }, h("h3", "By user and API key"), byKey.element);

  load = async () => {
    to.min = from.value;
    to.setCustomValidity(daysBetween(from.value, to.value) > MAX_DAYS ? `Choose at most ${number(MAX_DAYS)} days` : "");
    if (!from.reportValidity() || !to.reportValidity()) return;
    loading.abort();
    const { signal } = loading = new AbortController();
    replace(problem);
    results.ariaBusy = "true";
    const user = scope.user();
    query = { from: from.value, to: to.value, user };
    try {
      let days;
      [days, names] = await Promise.all([usageByDay(query, signal), keyNames(user, signal)]);
      show(days);
      byUser.hidden = false;
      await byKey.reload();
    } catch (error) {
      if (signal.aborted) return;
      if (error.isUnauthenticated) session.restored(signal).then(load, () => {});
      // What is displayed is that of another filter.
      replace(results);
      byUser.hidden = true;
      replace(problem, errorBox(error));
    }
    results.ariaBusy = null;
  };

  async function saveCsv() {
    download(`muse-usage-${query.from}-to-${query.to}.csv`, "text/csv;charset=utf-8", await usageCsv(query, names));
  }

  return h("section", { "aria-labelledby": "usage-title" },
    h("div", { class: "row between" }, h("h2", { id: "usage-title" }, "Usage"), csv),
    h("div", { class: "row filters" }, scope.elements, field("From (UTC)", from), field("To (UTC)", to)),
    problem, results, byUser);
}

export default { id: "usage", title: "Usage", admin: false, create, shown: () => load() };
