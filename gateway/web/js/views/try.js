// Try it: tokens, similarities and vectors of up to 100 lines.
import { call, embed, tokenize } from "../api.js";
import { announce, errorBox, h, number, replace, uniqueId } from "../dom.js";
import { tabs } from "../tabs.js";
import { similarities } from "../vectors.js";
import { exampleTexts } from "../try/examples.js";
import { exportPanel } from "../try/export.js";
import { heatmap } from "../try/heatmap.js";
import { checkLines, linesOf, MAX_LINES, readLines } from "../try/lines.js";
import { neighbours } from "../try/neighbours.js";
import { tokenList } from "../try/tokens.js";

// The URL of the service without a slash at its end; the page may have a path prefix.
const baseUrl = () => new URL(".", document.baseURI).href.replace(/\/$/, "");

function similarityPanel(result) {
  if (result.rows < 2) return h("p", { class: "empty" }, "Enter a second line to compare them.");
  return h("div", { class: "stack" }, heatmap(result), h("h3", "Nearest neighbours"), neighbours(result));
}

function create() {
  const text = h("textarea", { id: uniqueId("texts"), rows: 6, dir: "auto", spellcheck: "false", "aria-describedby": "try-count", placeholder: "One text per line, in any of the 16 languages" });
  const count = h("p", { id: "try-count", class: "small muted" });
  const file = h("input", { type: "file", accept: ".txt,.csv,.tsv,.md,text/*", class: "visually-hidden", id: uniqueId("file") });
  const run = h("button", { class: "primary" }, "Embed");
  const cancel = h("button", { type: "button", hidden: true }, "Cancel");
  const example = h("button", { type: "button", id: "try-example" }, "Load one sentence in 16 languages");
  const messages = h("div");
  const results = h("div", { class: "stack", id: "try-results", "aria-live": "off" });
  let running = null;

  function showError(error) {
    // The service counts from 0.
    const [prefix, index] = /^sentences?\[(\d+)\]/.exec(error.message) ?? [];
    if (index) error.message = error.message.replace(prefix, `Line ${Number(index) + 1}`);
    const box = errorBox(error);
    const first = error.lines?.slice(0, MAX_LINES);
    if (first?.length) {
      box.append(h("div", { class: "row" },
        h("button", { type: "button", onclick: () => setLines(first) }, `Use the first ${MAX_LINES} lines`),
        h("a", { href: "#search" }, "Go to Search")));
    }
    replace(messages, box);
  }

  function updateCount() {
    const lines = linesOf(text.value).length;
    const tooMany = lines > MAX_LINES;
    count.textContent = tooMany ? `${number(lines)} lines: ${number(lines - MAX_LINES)} too many` : `${lines} of ${MAX_LINES} lines`;
    text.setAttribute("aria-invalid", String(tooMany));
  }

  function setLines(lines) {
    text.value = lines.join("\n");
    replace(messages);
    updateCount();
  }

  async function start() {
    replace(messages);
    let texts;
    try {
      texts = checkLines(linesOf(text.value), "The input");
    } catch (error) {
      showError(error);
      text.focus();
      return;
    }
    running?.abort();
    const controller = (running = new AbortController());
    const { signal } = controller;
    run.disabled = true;
    run.textContent = "Embedding…";
    cancel.hidden = false;
    try {
      const [{ rows, dimension, vectors }, tokens, { model }] = await Promise.all([embed(texts, { signal }), tokenize(texts, { signal }), call("api/status", { signal })]);
      const result = { texts, tokens, rows, dimension, vectors, matrix: similarities(vectors, rows, dimension) };
      replace(results, tabs("Results", [
        { title: "Similarity", panel: similarityPanel(result) },
        { title: "Tokens", panel: tokenList(result) },
        { title: "Vectors and code", panel: exportPanel(result, { base: baseUrl(), model: model.name, texts }) },
      ]));
      if (results.getBoundingClientRect().top > innerHeight / 2) results.scrollIntoView();
      announce(`The results for ${rows} ${rows === 1 ? "line" : "lines"} are below.`);
    } catch (error) {
      if (!signal.aborted) showError(error);
    } finally {
      if (running === controller) {
        run.disabled = false;
        run.textContent = "Embed";
        cancel.hidden = true;
        // A disabled button loses the focus, and so does a hidden one.
        if (document.activeElement === document.body) run.focus({ preventScroll: true });
      }
    }
  }

  async function load(chosen) {
    if (!chosen) return;
    try {
      setLines(await readLines(chosen));
      await start();
    } catch (error) {
      showError(error);
    }
  }

  text.addEventListener("input", updateCount);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) start();
  });
  cancel.addEventListener("click", () => running.abort());
  example.addEventListener("click", () => {
    setLines(exampleTexts);
    start();
  });
  file.addEventListener("change", () => {
    load(file.files[0]);
    // So that the same file can be chosen again after a correction.
    file.value = "";
  });

  const form = h("form", { class: "card stack drop" },
    h("div", { class: "field" }, h("label", { for: text.id }, "Texts, one per line"), text),
    h("div", { class: "row between" }, count, h("p", { class: "small muted drop-hint" }, "or drop a text file here")),
    h("div", { class: "row" }, run, cancel, example, file, h("label", { for: file.id, class: "button" }, "Choose a file…")),
    messages);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  form.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    form.classList.add("dragging");
  });
  form.addEventListener("dragleave", (event) => form.contains(event.relatedTarget) || form.classList.remove("dragging"));
  form.addEventListener("drop", (event) => {
    form.classList.remove("dragging");
    if (event.dataTransfer.files.length === 0) return;
    event.preventDefault();
    load(event.dataTransfer.files[0]);
  });

  updateCount();
  replace(results, h("p", { class: "empty" }, "Load one sentence in 16 languages to see how the model compares them, or enter your own texts. The results appear here; nothing is stored."));
  return h("section", { "aria-labelledby": "try-title" },
    h("div", { class: "stack tight" },
      h("h2", { id: "try-title" }, "Try it"),
      h("p", { class: "muted prose" }, "See which texts are similar in meaning, in and between 16 languages, and how the model splits them into tokens.")),
    form, results);
}

export default { id: "try", title: "Try it", admin: false, create };
