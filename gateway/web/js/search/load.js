// Where a text comes from: a file, pasted lines, or the sample.
import { h } from "../dom.js";
import { SAMPLE } from "./sample.js";

// The form; calls `open(name, source)` with a File or a string, also for a file dropped on `target`.
export function loadForm(target, open) {
  const openFile = ([file]) => file && open(file.name, file);
  const file = h("input", { id: "search-file", type: "file", "aria-describedby": "search-hint" });
  file.addEventListener("change", () => {
    openFile(file.files);
    // The same file can be chosen again.
    file.value = "";
  });
  target.addEventListener("dragover", (event) => event.preventDefault());
  target.addEventListener("drop", (event) => {
    event.preventDefault();
    openFile(event.dataTransfer.files);
  });
  const zone = h("div", { class: "search-drop stack tight" },
    h("label", { for: "search-file" }, "Choose a text file, or drop it here"), file,
    h("p", { class: "hint", id: "search-hint" }, "One sentence per line, up to 50,000 lines; UTF-8, or UTF-16 with a byte order mark."));

  const field = h("textarea", { id: "search-paste", rows: "4", dir: "auto", spellcheck: "false", required: true });
  const onsubmit = (event) => {
    event.preventDefault();
    open("Pasted text", field.value);
  };
  const form = h("form", { class: "stack tight", onsubmit },
    h("label", { for: "search-paste" }, "Or paste lines"), field,
    h("div", { class: "row" },
      h("button", "Embed these lines"),
      h("button", { type: "button", class: "quiet", onclick: () => open("Sample sentences", SAMPLE) }, "Use 20 sample sentences")));
  return h("div", { class: "card stack" },
    h("div", { class: "search-sources" }, zone, form),
    h("p", { class: "muted small" }, "The page sends the lines to this service to embed them, and nowhere else. Lines and vectors stay in the memory of this tab: 2 KiB per line, 98 MiB for 50,000 lines."));
}
