// The input of Try it: a text field, a file, or the examples.
import { errorBox, h, number, replace, uniqueId } from "../dom.js";
import { session } from "../session.js";
import { exampleTexts } from "./examples.js";
import { checkLines, linesOf, MAX_LINES, readLines } from "./lines.js";

// A form that calls `compute(texts, signal)`, and `show` with its result; it shows errors itself.
export function inputForm(compute, show) {
  const text = h("textarea", { id: uniqueId("texts"), rows: 6, dir: "auto", spellcheck: "false", "aria-describedby": "try-count", placeholder: "One text per line, in any of the 16 languages" });
  const count = h("p", { id: "try-count", class: "small muted" });
  const file = h("input", { type: "file", accept: ".txt,.csv,.tsv,.md,text/*", class: "visually-hidden", id: uniqueId("file") });
  const submit = h("button", { class: "primary" }, "Embed");
  const cancel = h("button", { type: "button", hidden: true }, "Cancel");
  const example = h("button", { type: "button", id: "try-example" }, "Load one sentence in 16 languages");
  const messages = h("div");
  let running = null;
  // The text that the results belong to.
  let embedded = null;

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
    if (embedded !== null && embedded !== text.value) count.textContent += " · the results below belong to the earlier text";
    text.setAttribute("aria-invalid", String(tooMany));
  }

  function setLines(lines) {
    text.value = lines.join("\n");
    replace(messages);
    updateCount();
  }

  function setBusy(busy) {
    submit.disabled = busy;
    submit.textContent = busy ? "Embedding…" : "Embed";
    cancel.hidden = !busy;
    // A disabled button loses the focus, and so does a hidden one.
    if (!busy && document.activeElement === document.body) submit.focus({ preventScroll: true });
  }

  async function start() {
    replace(messages);
    const input = text.value;
    let texts;
    try {
      texts = checkLines(linesOf(input), "The input");
    } catch (error) {
      showError(error);
      text.focus();
      return;
    }
    running?.abort();
    const controller = (running = new AbortController());
    const { signal } = controller;
    setBusy(true);
    let result = null;
    try {
      result = await compute(texts, signal);
    } catch (error) {
      if (session.hasEnded) session.restored(signal).then(start, () => {});
      else if (!signal.aborted) showError(error);
    }
    if (running !== controller) return;
    // The change of the focus needs the layout, which takes longer with the results.
    setBusy(false);
    if (!result) return;
    embedded = input;
    updateCount();
    show(result);
  }

  async function load(chosen) {
    try {
      setLines(await readLines(chosen));
    } catch (error) {
      showError(error);
      return;
    }
    await start();
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
    if (file.files.length) load(file.files[0]);
    // So that the same file can be chosen again after a correction.
    file.value = "";
  });

  const form = h("form", { class: "card stack drop" },
    h("div", { class: "field" }, h("label", { for: text.id }, "Texts, one per line"), text),
    h("div", { class: "row between" }, count, h("p", { class: "small muted drop-hint" }, "or drop a text file here")),
    h("div", { class: "row" }, submit, cancel, example, file, h("label", { for: file.id, class: "button" }, "Choose a file…")),
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
  return form;
}
