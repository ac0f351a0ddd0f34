// Elements, dialogs, messages, downloads. Texts become text nodes: there is no HTML from strings.
export { bytes, day, duration, number } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

const isNothing = (value) => value === null || value === undefined || value === false;

// Creates an element: h("button", { class: "primary", onclick: save }, "Save"); "svg:path" is in the namespace of SVG.
// null and false omit an attribute or a child; `style` is an object of CSS properties.
export function h(tag, ...rest) {
  const element = tag.startsWith("svg:") ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  const first = rest[0];
  const attributes = first && Object.getPrototypeOf(first) === Object.prototype ? rest.shift() : {};
  append(element, rest);
  for (const [name, value] of Object.entries(attributes)) {
    if (isNothing(value)) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  return element;
}

function append(parent, children) {
  for (const child of children) {
    if (isNothing(child)) continue;
    if (Array.isArray(child)) append(parent, child);
    else parent.append(child instanceof Node ? child : String(child));
  }
}

// Replaces the children of an element.
export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

let nextId = 0;
// An id that is unique on the page.
export const uniqueId = (name) => `${name}-${++nextId}`;

// Lets a screen reader read a text. An open dialog hides the rest of the page, and needs a region of its own.
export function announce(text) {
  const open = [...document.querySelectorAll("dialog[open]")].at(-1);
  let region = open ? open.querySelector(":scope > .live") : document.getElementById("live");
  if (!region) open.append((region = h("div", { class: "live visually-hidden", role: "status", "aria-live": "polite" })));
  // Only a change is read: repeat a text with a no-break space.
  region.textContent = region.textContent === text ? `${text}\u00a0` : text;
}

export function download(fileName, mediaType, parts) {
  const url = URL.createObjectURL(new Blob(parts, { type: mediaType }));
  const link = h("a", { href: url, download: fileName, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  // The browser reads the blob after the click.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  announce(`Downloaded ${fileName}`);
}

// Copies a text to the clipboard. Without https the clipboard API does not exist.
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const before = document.activeElement;
    const area = h("textarea", { value: text, class: "visually-hidden" });
    before.after(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    before.focus({ preventScroll: true });
    if (!copied) return false;
  }
  announce("Copied");
  return true;
}

// A button that copies the text that `text()` returns or promises, and shows for a moment that it did.
export function copyButton(label, text, attributes = {}) {
  const button = h("button", { type: "button", ...attributes }, label);
  let timer;
  button.addEventListener("click", async () => {
    const copied = await copy(await text());
    button.textContent = copied ? "Copied ✓" : "Not copied";
    clearTimeout(timer);
    timer = setTimeout(() => (button.textContent = label), 2000);
  });
  return button;
}

// What happened, and what to do. An error without advice is a fault of this page.
export function errorBox(error) {
  return h("div", { class: "notice error", role: "alert" },
    h("p", h("strong", sentence(error.message || String(error)))),
    h("p", error.advice ?? "This is an error of the page. Reload it; if the error persists, report it to the operator."));
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

// Opens a modal dialog and returns it. It is removed when it closes; the browser returns the focus.
export function dialog(title, ...children) {
  const id = uniqueId("dialog");
  const element = h("dialog", { "aria-labelledby": id, onclose: () => element.remove() },
    h("div", { class: "dialog-head" },
      h("h2", { id }, title),
      h("button", { class: "quiet close", "aria-label": "Close", onclick: () => element.close() }, "×")),
    children);
  document.body.append(element);
  element.showModal();
  return element;
}

// Asks the user; `action` is the label of the button that confirms.
export function confirmDialog(title, text, action) {
  return new Promise((resolve) => {
    let confirmed = false;
    const element = dialog(title, h("p", text),
      h("div", { class: "row end" },
        h("button", { autofocus: true, onclick: () => element.close() }, "Cancel"),
        h("button", { class: "danger", onclick: () => { confirmed = true; element.close(); } }, action)));
    element.addEventListener("close", () => resolve(confirmed));
  });
}
