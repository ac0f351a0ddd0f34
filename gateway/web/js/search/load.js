// Where a text comes from: a file, a drop, the clipboard, or the sample.
import { h } from "../dom.js";
import { SAMPLE } from "./sample.js";

// Browsers need seconds to show longer texts in a text field.
const MAX_FIELD_CHARACTERS = 100_000;
const PASTED = "Pasted text";

// The form; calls `open(name, source)` with a File or a string, also for a file dropped on `target`.
export function loadForm(target, open) {
  const openFile = ([file]) => file && open(file.name, file);
  const file = h("input", { id: "search-file", type: "file", "aria-describedby": "search-hint" });
  file.addEventListener("change", () => {
    openFile(file.files);
    // The same file can be chosen again.
    file.value = "";
  });
  const zone = h("div", { class: "search-drop stack tight" },
    h("label", { for: "search-file" }, "Choose a text file, or drop it here"), file,
    h("p", { class: "hint", id: "search-hint" }, "One sentence per line, up to 50,000 lines; UTF-8, or UTF-16 with a byte order mark."));
  const highlight = (isOver) => zone.classList.toggle("over", isOver);
  target.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    highlight(true);
  });
  target.addEventListener("dragleave", () => highlight(false));
  target.addEventListener("drop", (event) => {
    highlight(false);
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    openFile(event.dataTransfer.files);
  });

  const field = h("textarea", { id: "search-paste", rows: "4", dir: "auto", spellcheck: "false", required: true });
  field.addEventListener("paste", (event) => {
    const text = event.clipboardData.getData("text/plain");
    if (text.length <= MAX_FIELD_CHARACTERS) return;
    event.preventDefault();
    open(PASTED, text);
  });
  const form = h("form", { class: "stack tight" },
    h("label", { for: "search-paste" }, "Or paste lines"), field,
    h("div", { class: "row" },
      h("button", "Embed these lines"),
      h("button", { type: "button", class: "quiet", onclick: () => open("Sample sentences", SAMPLE) }, "Use 20 sample sentences")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    open(PASTED, field.value);
  });
  return h("div", { class: "card stack" },
    h("div", { class: "search-sources" }, zone, form),
    h("p", { class: "muted small" }, "The page sends the lines to this service to embed them, and nowhere else. Lines and vectors stay in the memory of this tab: 2 KiB per line, 98 MiB for 50,000 lines."));
}
