// Tabs (ARIA Authoring Practices): arrow keys move between the tabs of a list, which is one stop of the Tab key.
import { h, uniqueId } from "./dom.js";

// `tabs` are [{title, panel}]; returns the list and the panels.
export function tabs(label, items) {
  const buttons = items.map(({ title, panel }, index) => {
    const id = uniqueId("tab");
    panel.id ||= uniqueId("panel");
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", id);
    return h("button", { id, type: "button", role: "tab", "aria-controls": panel.id, onclick: () => select(index) }, title);
  });
  function select(chosen) {
    buttons.forEach((button, index) => {
      button.setAttribute("aria-selected", String(index === chosen));
      button.tabIndex = index === chosen ? 0 : -1;
      items[index].panel.hidden = index !== chosen;
    });
  }
  const list = h("div", { role: "tablist", "aria-label": label }, buttons);
  list.addEventListener("keydown", (event) => {
    const at = buttons.indexOf(event.target);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
    if (at < 0 || to === undefined) return;
    event.preventDefault();
    const next = (to + buttons.length) % buttons.length;
    select(next);
    buttons[next].focus();
  });
  select(0);
  return [list, ...items.map(({ panel }) => panel)];
}
