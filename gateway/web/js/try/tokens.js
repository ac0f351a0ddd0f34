// The tokens of each line as coloured pieces, with ids and positions.
import { h, number, replace } from "../dom.js";
import { eachInTasks } from "../tasks.js";
import { languageOf } from "./examples.js";

const COLOURS = 6;
// A line may have thousands of tokens.
const MAX_SHOWN = 150;
// Lines outside the visible part need no layout, if there are many tokens.
const MANY_TOKENS = 1500;

const HINT = "Point at a token, or move to it with Tab and the arrow keys, to see its id and its place in the line.";

export function tokenList({ texts, tokens }) {
  const detail = h("p", { class: "detail token-detail small" }, HINT);
  const total = tokens.reduce((sum, row) => sum + row.tokens.length, 0);
  const list = h("ol", { class: `token-lines${total > MANY_TOKENS ? " many" : ""}` });
  const utf8 = texts.map((text) => new TextEncoder().encode(text));
  const place = (span) => span.join("–");

  function lineItem(line) {
    const text = texts[line];
    const row = tokens[line];
    const count = row.tokens.length;
    const pieces = row.tokens.slice(0, MAX_SHOWN).map((token, index) => {
      // The vocabulary lacks these characters: show them.
      const unknown = token === "<unk>";
      const shown = unknown ? new TextDecoder().decode(utf8[line].subarray(...row.bytes[index])) : token;
      return h("span", {
        role: "option", class: `token colour-${index % COLOURS}${unknown ? " unknown" : ""}`, tabindex: index ? -1 : 0, "aria-selected": "false",
        "aria-label": `${shown}${unknown ? ", not in the vocabulary" : ""}, id ${row.ids[index]}, bytes ${place(row.bytes[index])}`, "data-index": index,
      }, shown);
    });
    const language = languageOf(text);
    return h("li", { class: "token-line", "data-line": line },
      h("div", { class: "token-head small muted" }, h("span", { class: "line-number" }, line + 1), language?.name ?? null,
        h("span", { class: "token-count" }, `${number(count)} ${count === 1 ? "token" : "tokens"}`)),
      count === 0 ? null : h("div", { class: "tokens", role: "listbox", "aria-label": `Tokens of line ${line + 1}`, "aria-orientation": "horizontal", dir: "auto", lang: language?.tag ?? null }, pieces),
      count > MAX_SHOWN ? h("p", { class: "small muted" }, `The first ${MAX_SHOWN} tokens are shown.`) : null);
  }

  let active = null;
  function show(piece) {
    const line = Number(piece.closest(".token-line").dataset.line);
    const index = Number(piece.dataset.index);
    const { ids, bytes, chars } = tokens[line];
    active?.classList.remove("active");
    active = piece;
    active.classList.add("active");
    replace(detail, h("bdi", { class: "mono token-name" }, tokens[line].tokens[index]), ` · id ${ids[index]} · bytes ${place(bytes[index])} · characters ${place(chars[index])} · token ${index + 1} of line ${line + 1}`);
  }

  list.addEventListener("pointerover", ({ target }) => target.matches(".token") && show(target));
  list.addEventListener("focusin", ({ target }) => {
    if (!target.matches(".token")) return;
    // The Tab key comes back to the token that had the focus last.
    for (const other of target.parentElement.querySelectorAll("[tabindex='0'], [aria-selected=true]")) {
      other.tabIndex = -1;
      other.setAttribute("aria-selected", "false");
    }
    target.tabIndex = 0;
    target.setAttribute("aria-selected", "true");
    show(target);
  });
  list.addEventListener("click", ({ target }) => target.matches(".token") && target.focus());
  list.addEventListener("keydown", (event) => {
    if (!event.target.matches(".token")) return;
    const pieces = event.target.parentElement.children;
    const forward = getComputedStyle(event.target.parentElement).direction === "rtl" ? -1 : 1;
    const at = Number(event.target.dataset.index);
    const to = { ArrowRight: at + forward, ArrowLeft: at - forward, Home: 0, End: pieces.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    pieces[to]?.focus();
  });

  const size = utf8.reduce((sum, text) => sum + text.length, 0);
  const element = h("div", { class: "stack" },
    h("p", h("strong", `${number(total)} tokens`), ` in ${number(texts.length)} ${texts.length === 1 ? "line" : "lines"} of ${number(size)} bytes. ▁ stands for a space.`),
    list, detail);
  eachInTasks(texts, (_, line) => list.append(lineItem(line)));
  return element;
}
