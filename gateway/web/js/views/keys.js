// API keys: create, list, edit, disable, delete.
import { call } from "../api.js";
import { announce, confirmDialog, day, errorBox, h, replace } from "../dom.js";
import { createKey, editKey } from "../manage/key-forms.js";
import { quotaText } from "../manage/quota.js";
import { scopeFilter } from "../manage/scope.js";
import { name, pagedTable } from "../manage/table.js";

const expired = (key) => key.expires_at !== null && key.expires_at * 1000 <= Date.now();
const state = (key) => (key.disabled ? "Disabled" : expired(key) ? "Expired" : "Active");

let list;

function create() {
  const problem = h("div");
  const filter = scopeFilter("mine", () => { list.clear(); list.reload(); });
  const open = () => createKey((key) => {
    announce(`The key ${key.name} was created.`);
    list.reload();
  });

  // Runs a change of a key. If another session deleted it meanwhile, the list is loaded again.
  async function change(key, action) {
    replace(problem);
    try {
      await action();
    } catch (error) {
      replace(problem, errorBox(error));
      if (error.status === 404) await list.reload();
    }
  }
  const path = (key) => `api/keys/${encodeURIComponent(key.id)}`;

  const toggle = (key) => change(key, async () => {
    const now = await call(path(key), { method: "PATCH", body: { disabled: !key.disabled } });
    list.set(now, "toggle");
    announce(`The key ${key.name} is ${now.disabled ? "disabled" : "enabled"}.`);
  });
  const remove = (key) => change(key, async () => {
    const text = `Programs that use the key “${key.name}” of ${key.owner} get 401 from now on. This cannot be undone.`;
    if (!(await confirmDialog("Delete this API key?", text, "Delete key"))) return;
    await call(path(key), { method: "DELETE", as: "none" });
    list.remove(key);
    announce(`The key ${key.name} was deleted.`);
  });

  const action = (key, id, label, run, attributes = {}) =>
    h("button", { type: "button", "data-action": id, "aria-label": `${label} key ${key.name}`, onclick: () => run(key), ...attributes }, label);
  const columns = () => [
    { title: "Name", cell: (key) => [h("strong", name(key.name)), h("code", { class: "muted", title: "The id of the key, which logs contain" }, key.id)] },
    "mine" in filter.value() ? null : {
      title: "Owner",
      cell: (key) => [name(key.owner), key.created_by === key.owner ? null : h("span", { class: "muted" }, "created by ", key.created_by === null ? "the operator" : name(key.created_by))],
    },
    { title: "State", cell: (key) => [h("span", { class: `badge ${state(key).toLowerCase()}` }, state(key)), key.bulk ? h("span", { class: "badge" }, "Bulk") : null] },
    { title: "Created", cell: (key) => day(key.created_at) },
    { title: "Expires", cell: (key) => (key.expires_at === null ? "never" : day(key.expires_at)) },
    { title: "Last used", cell: (key) => (key.last_used_day === null ? "never" : [h("span", `${day(key.last_used_day)} UTC`), key.last_used_from ? h("span", { class: "muted" }, `from ${key.last_used_from}`) : null]) },
    { title: "Quota", cell: (key) => quotaText(key.quota) },
    {
      title: "Actions", class: "row-actions",
      cell: (key) => [
        action(key, "edit", "Edit", () => editKey(key, (now) => { list.set(now, "edit"); announce(`The key ${now.name} was changed.`); })),
        action(key, "toggle", key.disabled ? "Enable" : "Disable", toggle),
        action(key, "delete", "Delete", remove, { class: "danger" }),
      ],
    },
  ].filter(Boolean);

  list = pagedTable({
    label: "API keys", columns, id: (key) => key.id,
    load: async (page, signal) => {
      const { all, user } = filter.value();
      const { keys, next } = await call("api/keys", { query: { all, user, ...page }, signal });
      return { items: keys, next };
    },
    empty: () => h("div", { class: "empty" },
      h("h3", "No API keys yet"),
      h("p", "A program that cannot log in, such as a vector database, a nightly job or a client of OpenAI's API, sends an API key with each call. A key may embed and tokenize, and nothing else: it cannot manage keys or users."),
      h("button", { type: "button", class: "primary", onclick: open }, "Create a key")),
  });

  return h("section", { "aria-labelledby": "keys-title" },
    h("div", { class: "view-head" },
      h("h2", { id: "keys-title" }, "API keys"),
      h("button", { type: "button", class: "primary", onclick: open }, "New key")),
    h("p", { class: "muted" }, "Credentials of programs. They stay valid when you log out or change your password."),
    h("div", { class: "row filters" }, filter.element),
    problem, list.element);
}

export default { id: "keys", title: "Keys", admin: false, create, shown: () => list.reload() };
