// Tables, and lists that load their rows page by page.
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

// Loads all pages of a list: calls `load(after)` until it returns no `next`.
export async function* pages(load) {
  let after;
  do {
    const page = await load(after);
    yield page;
    after = page.next;
  } while (after !== null);
}

// Columns are {title, cell(item), class?}. On a narrow screen rows with actions become cards (manage.css), which browsers do not
// take for a table without the roles.
const tableRow = (columns, item) => h("tr", { role: "row" }, columns.map((column) =>
  h("td", { role: "cell", "data-label": column.title, class: column.class }, column.cell(item))));

export const table = (label, columns, items) => h("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": label },
  h("table", { role: "table", class: columns.some((column) => column.class === "row-actions") && "cards", "aria-label": label },
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, columns.map((column) =>
      h("th", { role: "columnheader", scope: "col", class: column.class }, column.title)))),
    h("tbody", { role: "rowgroup" }, items.map((item) => tableRow(columns, item)))));

// A table that loads its rows. `columns()` may depend on a filter, `id(item)` identifies a row, `load({after, limit}, signal)`
// returns {items, next}, and `empty()` creates what is displayed instead of a table without rows.
export function pagedTable({ label, columns, id, load, empty }) {
  const rows = new Map();
  let next = null;
  let loading = new AbortController();
  const content = h("div", { tabindex: "-1" });
  const problem = h("div", { class: "problem" });
  const count = h("span", { class: "muted" });
  const more = h("button", { type: "button", onclick: () => get(next) }, "Load more");
  const footer = h("div", { class: "row", hidden: true }, more, count);

  function clear() {
    rows.clear();
    next = null;
    footer.hidden = true;
    replace(content);
  }

  // Adds rows, or replaces those that are displayed.
  function put(items, place) {
    const current = columns();
    if (rows.size === 0) replace(content, items.length > 0 ? table(label, current, []) : empty());
    const body = content.querySelector("tbody");
    for (const item of items) {
      const row = tableRow(current, item);
      if (rows.has(id(item))) rows.get(id(item)).replaceWith(row);
      else body[place](row);
      rows.set(id(item), row);
    }
    replace(count, `${number(rows.size)} shown, there are more`);
    footer.hidden = next === null;
  }

  async function get(after) {
    loading.abort();
    const { signal } = loading = new AbortController();
    if (rows.size === 0) replace(content, h("p", { class: "muted" }, "Loading…"));
    content.setAttribute("aria-busy", "true");
    more.setAttribute("aria-disabled", "true");
    // A reload fetches what was displayed, so that the list does not jump.
    const limit = after ? PAGE : Math.min(Math.max(rows.size, PAGE), LARGEST_PAGE);
    try {
      const page = await load({ after, limit }, signal);
      if (signal.aborted) return;
      replace(problem);
      const hadFocus = content.contains(document.activeElement);
      if (!after) clear();
      next = page.next;
      put(page.items, "append");
      if (after) {
        announce(`${number(rows.size)} rows`);
        // The button with the focus disappears with the last page.
        if (next === null) (rows.get(id(page.items[0]))?.querySelector("button") ?? content).focus({ preventScroll: true });
      } else if (hadFocus) content.focus();
    } catch (error) {
      if (signal.aborted) return;
      if (rows.size === 0) replace(content);
      if (error.isUnauthenticated) session.restored(signal).then(() => get(after), () => {});
      replace(problem, errorBox(error), error.isTemporary && h("button", { type: "button", onclick: () => get(after) }, "Try again"));
    } finally {
      if (!signal.aborted) {
        content.removeAttribute("aria-busy");
        more.removeAttribute("aria-disabled");
      }
    }
  }

  return {
    element: h("div", { class: "stack" }, problem, content, footer),
    // Loads the list again. Returns a promise.
    reload: () => get(null),
    // Forgets the rows, for another filter.
    clear,
    // Replaces a row, or adds it at the top. A focus within the row stays on the button with this `data-action`.
    set(item, action) {
      const hadFocus = rows.get(id(item))?.contains(document.activeElement);
      put([item], "prepend");
      if (hadFocus) rows.get(id(item)).querySelector(`[data-action="${action}"]`)?.focus();
    },
    remove(item) {
      const row = rows.get(id(item));
      const hadFocus = row?.contains(document.activeElement);
      row?.remove();
      rows.delete(id(item));
      if (rows.size === 0) put([]);
      if (hadFocus) content.focus();
    },
  };
}
