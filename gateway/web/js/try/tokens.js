// The tokens of each line as coloured pieces, with ids and positions.
import { h, number, replace } from "../dom.js";
import { eachInTasks } from "../tasks.js";
import { languageName, languageOf } from "./examples.js";

// A line may have thousands of tokens.
const MAX_SHOWN = 150;
// Lines outside the visible part need no layout, if there are many tokens.
const MANY_TOKENS = 1500;

export function tokenList({ texts, tokens }) {
  const detail = h("p", { class: "token-detail small" }, "Point at or tap a token, or use Tab and the arrow keys, to see its id and position.");
  const total = tokens.reduce((sum, row) => sum + row.tokens.length, 0);
  const utf8 = texts.map((text) => new TextEncoder().encode(text));
  const size = utf8.reduce((sum, text) => sum + text.length, 0);
  const list = h("ol", { class: `token-lines${total > MANY_TOKENS ? " many" : ""}`, onpointerover: select, onfocusin: select, onkeydown: moveFocus });
  const place = (span) => span.join("–");

  function piece(line, index) {
    const { tokens: names, ids, bytes } = tokens[line];
    // The vocabulary lacks these characters: show them.
    const unknown = names[index] === "<unk>";
    const shown = unknown ? new TextDecoder().decode(utf8[line].subarray(...bytes[index])) : names[index];
    return h("span", {
      role: "option", class: `token${unknown ? " unknown" : ""}`, tabindex: index ? -1 : 0, "data-line": line, "data-index": index,
      "aria-label": `${shown}${unknown ? ", not in the vocabulary" : ""}, id ${ids[index]}, bytes ${place(bytes[index])}`,
    }, shown);
  }

  function lineItem(line) {
    const count = tokens[line].tokens.length;
    const pieces = Array.from({ length: Math.min(count, MAX_SHOWN) }, (_, index) => piece(line, index));
    return h("li", { class: "token-line stack tight" },
      h("div", { class: "row between small muted" }, h("span", line + 1, languageName(texts[line]) && ` · ${languageName(texts[line])}`), h("span", `${number(count)} ${count === 1 ? "token" : "tokens"}`)),
      h("div", { class: "tokens", role: "listbox", "aria-label": `Tokens of line ${line + 1}`, "aria-orientation": "horizontal", dir: "auto", lang: languageOf(texts[line]) }, pieces),
      count > MAX_SHOWN && h("p", { class: "small muted" }, `The first ${MAX_SHOWN} tokens are shown.`));
  }

  // Shows the details of the token with the pointer or the focus.
  function select({ type, target }) {
    if (!target.matches(".token")) return;
    list.querySelector(".active")?.classList.remove("active");
    target.classList.add("active");
    if (type === "focusin") {
      // The Tab key comes back to the token that had the focus last.
      target.parentElement.querySelector("[tabindex='0']").tabIndex = -1;
      target.tabIndex = 0;
    }
    const { line, index } = target.dataset;
    const { tokens: names, ids, bytes, chars } = tokens[line];
    replace(detail, h("bdi", { class: "token-name mono" }, names[index]), names[index] === "<unk>" && " · not in the vocabulary",
      ` · id ${ids[index]} · bytes ${place(bytes[index])} (end excluded) · characters ${place(chars[index])} · token ${Number(index) + 1} of line ${Number(line) + 1}`);
  }

  function moveFocus(event) {
    const { parentElement: box, dataset } = event.target;
    const forward = getComputedStyle(box).direction === "rtl" ? -1 : 1;
    const at = Number(dataset.index);
    const to = { ArrowRight: at + forward, ArrowLeft: at - forward, Home: 0, End: box.children.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    box.children[to]?.focus();
  }

  eachInTasks(texts, (_, line) => list.append(lineItem(line)));
  return h("div", { class: "stack" },
    h("p", h("strong", `${number(total)} tokens`), ` in ${number(texts.length)} ${texts.length === 1 ? "line" : "lines"} of ${number(size)} bytes. ▁ marks a space or the start of a line.`),
    list, detail);
}
