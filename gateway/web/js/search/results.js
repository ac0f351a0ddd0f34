// The query and its results, while the user types and while lines are embedded.
import { embed } from "../api.js";
import { announce, duration, errorBox, h, number, replace } from "../dom.js";
import { session } from "../session.js";

const DEBOUNCE_MS = 200;
const REFRESH_MS = 2000;

export function resultsPanel({ engine, job }) {
  const input = h("input", { id: "search-query", type: "search", autocomplete: "off", dir: "auto", placeholder: "A question or a sentence, in any of the 16 languages" });
  const errors = h("div");
  const status = h("p", { class: "muted small search-optional", tabindex: "-1" });
  const list = h("ol", { class: "search-results search-optional", role: "list", "aria-label": "Results" });
  let controller = new AbortController();
  let timer, refreshed = 0;
  // The text before the list, by the number of results; null without results.
  let title = null;

  function show(results) {
    status.textContent = job.done ? title(results.length) : "No line is embedded yet.";
    replace(list, results.map(({ row, score, line, text }, index) => h("li",
      h("span", { class: "muted number" }, index + 1),
      h("span", { class: "search-numbers", title: "Cosine similarity" }, score.toFixed(3).replace("-", "−"),
        h("meter", { value: score, "aria-hidden": "true" })),
      h("div", { class: "search-text" }, h("p", { dir: "auto" }, text), h("p", { class: "muted small" }, `Line ${number(line)}`)),
      h("button", { class: "quiet small-button", "aria-label": `Find lines similar to line ${line}`, onclick: () => findSimilar(row, line, text) }, "Find similar"))));
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
      title = (count) => `${description} ${count} of ${number(job.done)} lines by cosine similarity, in ${time}`;
      replace(errors);
      show(results);
      list.ariaBusy = null;
      announce(status.textContent);
    } catch (error) {
      if (!signal.aborted) clear(error);
    }
  }

  function findText() {
    const text = input.value.trim();
    if (text) {
      return search("Best", async (signal) => {
        const { vectors } = await embed([text], { signal });
        return engine.call("search", { vector: vectors });
      });
    }
    cancel();
    clear();
  }

  function findSimilar(row, line, text) {
    input.value = text;
    search(`Most similar to line ${line}:`, () => engine.call("search", { row }));
    // The button with the focus is removed.
    status.focus();
  }

  // Lines that are embedded now may be better; the list does not change while it has the focus.
  job.addEventListener("change", async () => {
    const now = performance.now();
    if (!title || list.contains(document.activeElement) || (job.isActive && now - refreshed < REFRESH_MS)) return;
    refreshed = now;
    const { signal } = controller;
    // It fails if the text was closed.
    const results = await engine.call("search").catch(() => null);
    if (results && !signal.aborted && title) show(results);
  });

  session.addEventListener("change", () => input.isConnected && findText());
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(findText, DEBOUNCE_MS);
  });
  const onsubmit = (event) => {
    event.preventDefault();
    findText();
  };
  const form = h("form", { class: "field", role: "search", onsubmit }, h("label", { for: "search-query" }, "Search in any language"), input);
  return { element: h("div", { class: "card stack" }, form, errors, status, list), input };
}
