// API keys: create, list, edit, disable, delete.
import { call } from "../api.js";
import { announce, confirmDialog, day, dialog, errorBox, h } from "../dom.js";
import { createKey, editKey } from "../manage/key-forms.js";
import { quotaText } from "../manage/quota.js";
import { explainName, scopeFilter } from "../manage/scope.js";
import { date, name, pagedTable } from "../manage/table.js";
import { session } from "../session.js";

const expired = (key) => key.expires_at !== null && key.expires_at * 1000 <= Date.now();
const state = (key) => (key.disabled ? ["warn", "Disabled"] : expired(key) ? ["bad", "Expired"] : ["ok", "Active"]);

let list;

function create() {
  const filter = scopeFilter("mine", () => {
    list.clear();
    list.reload();
  });
  const open = () => createKey(filter.value().user, (key) => {
    const { mine, user } = filter.value();
    if (mine ? key.owner === session.user.username : user === undefined || user === key.owner) list.set(key, "edit");
    announce(`The key ${key.name} was created.`);
  });

  // Another session deleted the key.
  function gone(key) {
    dialog("The key does not exist any more", h("p", h("strong", name(key.name)), " was deleted in the meantime. The list is loaded again."))
      .addEventListener("close", () => list.reload());
  }

  async function change(key, action) {
    try {
      await action();
    } catch (error) {
      if (error.status === 404) gone(key);
      else dialog("The key was not changed", errorBox(error));
    }
  }
  const changed = (key) => {
    list.set(key, "edit");
    announce(`The key ${key.name} was changed.`);
  };
  const path = (key) => `api/keys/${encodeURIComponent(key.id)}`;

  const toggle = (key) => change(key, async () => {
    const now = await call(path(key), { method: "PATCH", body: { disabled: !key.disabled } });
    list.set(now, "toggle");
    announce(`The key ${key.name} is ${now.disabled ? "disabled" : "enabled"}.`);
  });
  const remove = (key) => change(key, async () => {
    const text = ["Programs that use the key ", h("strong", name(key.name)), " of ", name(key.owner), " get 401 from now on. This cannot be undone."];
    if (!(await confirmDialog("Delete this API key?", text, "Delete key"))) return;
    await call(path(key), { method: "DELETE" });
    list.remove(key);
    announce(`The key ${key.name} was deleted.`);
  });

  const action = (key, id, label, run, attributes = {}) =>
    h("button", { type: "button", "data-action": id, class: "small-button", "aria-label": `${label} key ${key.name}`, onclick: () => run(key), ...attributes }, label);
  const columns = () => [
    { title: "Name", cell: (key) => [h("strong", name(key.name)), h("code", { class: "muted", title: "The id of the key, which logs contain" }, key.id)] },
    "mine" in filter.value() ? null : {
      title: "Owner",
      cell: (key) => [name(key.owner), key.created_by === key.owner ? null : h("span", { class: "muted" }, "created by ", key.created_by === null ? "the operator" : name(key.created_by))],
    },
    { title: "State", cell: (key) => [h("span", { class: `badge ${state(key)[0]}` }, state(key)[1]), key.bulk ? h("span", { class: "badge" }, "Bulk") : null] },
    { title: "Created", cell: (key) => date(key.created_at) },
    { title: "Expires", cell: (key) => (key.expires_at === null ? "never" : date(key.expires_at)) },
    { title: "Last used", cell: (key) => (key.last_used_day === null ? "never" : [h("span", { class: "nowrap" }, `${day(key.last_used_day)} UTC`), key.last_used_from ? h("span", { class: "muted" }, `from ${key.last_used_from}`) : null]) },
    { title: "Quota", cell: (key) => quotaText(key.quota) },
    {
      title: "Actions", class: "row-actions",
      cell: (key) => [
        action(key, "edit", "Edit", () => editKey(key, { changed, gone })),
        action(key, "toggle", key.disabled ? "Enable" : "Disable", toggle),
        action(key, "delete", "Delete", remove, { class: "small-button danger" }),
      ],
    },
  ].filter(Boolean);

  list = pagedTable({
    label: "API keys", columns, id: (key) => key.id,
    load: async (page, signal) => {
      const { all, user } = filter.value();
      const { keys, next } = await call("api/keys", { query: { all, user, ...page }, signal }).catch((error) => { throw explainName(error); });
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
    list.element);
}

export default { id: "keys", title: "Keys", admin: false, create, shown: () => list.reload() };
