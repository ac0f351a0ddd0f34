// Tables, and lists that load their rows page by page.
import { call } from "../api.js";
import { announce, errorBox, h, number, replace } from "../dom.js";
import { utcTime } from "../format.js";
import { session } from "../session.js";

const PAGE = 100;
const LARGEST_PAGE = 1000;

const dates = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium" });

// The local date of a time in seconds since 1970.
export const dateText = (seconds) => dates.format(new Date(seconds * 1000));
export const date = (seconds) => h("time", { title: utcTime(seconds) }, dateText(seconds));

// A name by a user: any Unicode, in any direction.
export const name = (text) => h("bdi", text);

export const badge = (kind, text) => h("span", { class: `badge ${kind}` }, text);

// Columns are {title, cell(item), class?}.
const table = (label, columns, items) => h("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": label },
  h("table", { class: "list", "aria-label": label },
    h("thead", h("tr", columns.map((column) => h("th", { class: column.class }, column.title)))),
    h("tbody", items.map((item) => h("tr", columns.map((column) => h("td", { class: column.class }, column.cell(item))))))));

// A table that loads its rows from `api/${list}`. `query()` may depend on a filter, `id` is the property that identifies a row,
// and `empty()` creates what is displayed instead of a table without rows.
export function pagedTable({ label, list, columns, query = () => ({}), id, empty }) {
  let items = [];
  let next = null;
  let loading = new AbortController();
  const content = h("div", { tabindex: "-1" });
  const problem = h("div", { class: "problem" });
  const count = h("span", { class: "muted" });
  const more = h("button", { onclick: () => load(next) }, "Load more");
  const footer = h("div", { class: "row", hidden: true }, more, count);

  function show() {
    const focused = document.activeElement;
    replace(count, `${number(items.length)} shown, there are more`);
    footer.hidden = next === null;
    // The focus stays on the button with the same id, if the row still exists.
    const hadFocus = content.contains(focused) || (footer.hidden && focused === more);
    replace(content, items.length > 0 ? table(label, columns, items) : empty());
    if (hadFocus) (document.getElementById(focused.id) ?? content).focus({ preventScroll: true });
  }

  async function load(after) {
    loading.abort();
    const { signal } = loading = new AbortController();
    if (items.length === 0) replace(content, h("p", { class: "muted" }, "Loading…"));
    content.ariaBusy = "true";
    // A reload fetches what was displayed, so that the list does not jump.
    const limit = after ? PAGE : Math.min(Math.max(items.length, PAGE), LARGEST_PAGE);
    try {
      const page = await call(`api/${list}`, { query: { ...query(), after, limit }, signal });
      replace(problem);
      items = after ? [...items, ...page[list]] : page[list];
      next = page.next;
      show();
      if (after) announce(`${number(items.length)} rows`);
    } catch (error) {
      if (signal.aborted) return;
      // The displayed rows may be those of another filter.
      if (!after) replace(content);
      if (error.isUnauthenticated) session.restored(signal).then(() => load(after), () => {});
      replace(problem, errorBox(error), error.isTemporary && h("button", { onclick: () => load(after) }, "Try again"));
    }
    content.ariaBusy = null;
  }

  return {
    element: h("div", { class: "stack" }, problem, content, footer),
    reload: () => load(null),
    // Replaces a row, or adds it at the top.
    set(item) {
      const at = items.findIndex((other) => other[id] === item[id]);
      if (at < 0) items.unshift(item);
      else items[at] = item;
      show();
    },
    remove(item) {
      items = items.filter((other) => other[id] !== item[id]);
      show();
    },
  };
}
