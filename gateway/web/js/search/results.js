// The query and its results, while the user types and while lines are embedded.
import { embed } from "../api.js";
import { announce, duration, errorBox, h, number, replace } from "../dom.js";
import { session } from "../session.js";

const COUNT = 20;
const DEBOUNCE_MS = 150;
// A screen reader reads the number of results when the user pauses.
const ANNOUNCE_MS = 1000;
const REFRESH_MS = 2000;

export function resultsPanel({ engine, job }) {
  const input = h("input", { id: "search-query", type: "search", autocomplete: "off", dir: "auto", enterkeyhint: "search" });
  const errors = h("div", { class: "search-optional" });
  const status = h("p", { class: "muted small search-optional", tabindex: "-1" });
  const list = h("ol", { class: "search-results search-optional", role: "list", "aria-label": "Results" });
  let controller = new AbortController();
  let timer, announcement, refreshed = 0;
  // The text before the list, for a number of results; null without results.
  let title = null;

  function show(results) {
    status.textContent = job.done ? title(results.length) : "No line is embedded yet.";
    replace(list, results.map(({ row, score, line, count, text }, index) => h("li",
      h("span", { class: "muted number" }, index + 1),
      h("span", { class: "search-score", title: "Cosine similarity" }, score.toFixed(3),
        h("span", { class: "search-bar", "aria-hidden": "true" }, h("span", { style: { width: `${100 * Math.max(0, score)}%` } }))),
      h("div", { class: "search-text" },
        h("p", { dir: "auto" }, text),
        h("p", { class: "muted small" }, `Line ${line}`, count > 1 && `, and ${number(count - 1)} more like it`)),
      h("button", { type: "button", class: "quiet small-button", "aria-label": `Find lines similar to line ${line}`, onclick: () => findSimilar(row, line, text) }, "Find similar"))));
  }

  function clear(error) {
    title = null;
    status.textContent = "";
    list.ariaBusy = null;
    replace(list);
    replace(errors, error && errorBox(error));
  }

  function cancel() {
    clearTimeout(timer);
    clearTimeout(announcement);
    controller.abort();
    controller = new AbortController();
  }

  async function search(description, find) {
    cancel();
    const { signal } = controller;
    const started = performance.now();
    list.ariaBusy = "true";
    try {
      const results = await find(signal);
      if (signal.aborted) return;
      const time = duration((performance.now() - started) / 1000);
      title = (count) => `${description} ${count} of ${number(job.done)} lines in ${time}`;
      replace(errors);
      show(results);
      list.ariaBusy = null;
      announcement = setTimeout(() => announce(status.textContent), ANNOUNCE_MS);
    } catch (error) {
      if (!signal.aborted) clear(error);
    }
  }

  function findText() {
    const text = input.value.trim();
    if (text) {
      return search("Best", async (signal) => {
        const { vectors } = await embed([text], { signal });
        return engine.call("search", { vector: vectors, count: COUNT });
      });
    }
    cancel();
    clear();
  }

  function findSimilar(row, line, text) {
    input.value = text;
    search(`Most similar to line ${line}:`, () => engine.call("search", { row, count: COUNT }));
    // The button with the focus is removed.
    status.focus();
  }

  // Lines that are embedded now may be better; the list does not change while it has the focus.
  job.addEventListener("change", async () => {
    const now = performance.now();
    if (!title || list.contains(document.activeElement) || (job.isActive && now - refreshed < REFRESH_MS)) return;
    refreshed = now;
    const { signal } = controller;
    try {
      const results = await engine.call("search", {});
      if (!signal.aborted && title) show(results);
    } catch {
      // The next search reports it.
    }
  });

  const typed = ({ isComposing }) => {
    clearTimeout(timer);
    if (!isComposing) timer = setTimeout(findText, DEBOUNCE_MS);
  };
  const form = h("form", { class: "field", role: "search" }, h("label", { for: "search-query" }, "Search in any language"), input);
  // After a login.
  session.addEventListener("change", () => input.isConnected && findText());
  input.addEventListener("input", typed);
  input.addEventListener("compositionend", typed);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    findText();
  });
  return { element: h("div", { class: "card stack" }, form, errors, status, list), input };
}
