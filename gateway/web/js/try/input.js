// The input of Try it: a text field, a file, or the examples.
import { errorBox, h, number, replace } from "../dom.js";
import { field } from "../manage/form.js";
import { session } from "../session.js";
import { exampleTexts } from "./examples.js";
import { checkLines, linesOf, MAX_LINES, readLines } from "./lines.js";

// A form that calls `compute(texts, signal)`, and `show` with its result; it shows errors itself.
export function inputForm(compute, show) {
  const text = h("textarea", { rows: 6, dir: "auto", spellcheck: "false", "aria-describedby": "try-count", placeholder: "One text per line, in any of the 16 languages", oninput: updateCount });
  const count = h("p", { id: "try-count", class: "small muted" });
  const file = h("input", { type: "file", accept: ".txt,.csv,.tsv,.md,text/*", class: "visually-hidden", id: "try-file", onchange: loadChosen });
  const submit = h("button", { class: "primary" }, "Embed");
  const cancel = h("button", { type: "button", hidden: true, onclick: () => running.abort() }, "Cancel");
  const example = h("button", { type: "button", id: "try-example", onclick: () => start(exampleTexts) }, "Load one sentence in 16 languages");
  const messages = h("div");
  let running = null;

  function showError(error) {
    // The service counts from 0.
    error.message = error.message.replace(/^sentences?\[(\d+)\]/, (_, index) => `Line ${Number(index) + 1}`);
    const first = error.lines?.slice(0, MAX_LINES);
    replace(messages, errorBox(error), first && h("div", { class: "row" },
      h("button", { type: "button", onclick: () => setLines(first) }, `Use the first ${MAX_LINES} lines`),
      h("a", { href: "#search" }, "Go to Search")));
  }

  function updateCount() {
    const lines = linesOf(text.value).length;
    count.textContent = `${number(lines)} of ${MAX_LINES} lines`;
    text.setAttribute("aria-invalid", String(lines > MAX_LINES));
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

  // Embeds the lines of the field, or others, which replace them.
  async function start(lines) {
    replace(messages);
    running?.abort();
    const controller = (running = new AbortController());
    const { signal } = controller;
    let result = null;
    try {
      const texts = checkLines(lines ?? linesOf(text.value));
      if (lines) setLines(lines);
      setBusy(true);
      result = await compute(texts, signal);
    } catch (error) {
      if (session.hasEnded) session.restored(signal).then(() => start(), () => {});
      else if (!signal.aborted) showError(error);
    }
    if (running !== controller) return;
    // The change of the focus needs the layout, which takes longer with the results.
    setBusy(false);
    if (result) show(result);
  }

  async function load(chosen) {
    try {
      await start(await readLines(chosen));
    } catch (error) {
      showError(error);
    }
  }

  function loadChosen() {
    if (file.files.length) load(file.files[0]);
    // So that the same file can be chosen again after a correction.
    file.value = "";
  }

  const form = h("form", {
    class: "card stack",
    onsubmit: (event) => {
      event.preventDefault();
      start();
    },
    ondragover: (event) => event.dataTransfer.types.includes("Files") && event.preventDefault(),
    ondrop: (event) => {
      if (event.dataTransfer.files.length === 0) return;
      event.preventDefault();
      load(event.dataTransfer.files[0]);
    },
  },
  field("Texts, one per line", text),
  h("div", { class: "row between" }, count, h("p", { class: "small muted drop-hint" }, "or drop a text file here")),
  h("div", { class: "row" }, submit, cancel, example, file, h("label", { for: file.id, class: "button" }, "Choose a file…")),
  messages);
  updateCount();
  return form;
}
