// API keys: create, list, edit, disable, delete.
import { call } from "../api.js";
import { announce, confirmDialog, dialog, errorBox, h } from "../dom.js";
import { createKey, editKey } from "../manage/key-forms.js";
import { quotaText } from "../manage/quota.js";
import { scopeFilter } from "../manage/scope.js";
import { badge, date, name, pagedTable } from "../manage/table.js";

let list;

function state(key) {
  if (key.disabled) return badge("warn", "Disabled");
  const isExpired = key.expires_at !== null && key.expires_at * 1000 <= Date.now();
  return isExpired ? badge("bad", "Expired") : badge("ok", "Active");
}

async function change(key, options, done) {
  try {
    done(await call(`api/keys/${key.id}`, options));
  } catch (error) {
    // Another session may have deleted the key.
    dialog("The key was not changed", errorBox(error)).addEventListener("close", () => list.reload());
  }
}

function changed(key) {
  list.set(key);
  announce(`The key ${key.name} was changed.`);
}

const toggle = (key) => change(key, { method: "PATCH", body: { disabled: !key.disabled } }, changed);

async function remove(key) {
  const text = ["Programs that use the key ", h("strong", name(key.name)), " of ", name(key.owner), " get 401 from now on. This cannot be undone."];
  if (!(await confirmDialog("Delete this API key?", text, "Delete key"))) return;
  await change(key, { method: "DELETE" }, () => {
    list.remove(key);
    announce(`The key ${key.name} was deleted.`);
  });
}

// `id` stays when the label changes.
const action = (key, id, label, onclick, kind = "") =>
  h("button", { id: `${id}-${key.id}`, class: `small-button ${kind}`, "aria-label": `${label} key ${key.name}`, onclick }, label);

const utcDays = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeZone: "UTC" });

// The service stores the day, in UTC.
const lastUse = (key) => [
  h("time", `${utcDays.format(new Date(key.last_used_day * 1000))} UTC`),
  key.last_used_from && h("span", { class: "muted" }, `from ${key.last_used_from}`),
];

const COLUMNS = [
  { title: "Name", cell: (key) => [h("strong", name(key.name)), h("code", { class: "muted" }, key.id)] },
  { title: "Owner", cell: (key) => name(key.owner) },
  { title: "State", cell: (key) => [state(key), key.bulk && badge("", "Bulk")] },
  { title: "Created", cell: (key) => date(key.created_at) },
  { title: "Expires", cell: (key) => (key.expires_at === null ? "never" : date(key.expires_at)) },
  { title: "Last used", cell: (key) => (key.last_used_day === null ? "never" : lastUse(key)) },
  { title: "Quota", cell: (key) => quotaText(key.quota) },
  {
    title: "Actions", class: "row-actions",
    cell: (key) => [
      action(key, "edit", "Edit", () => editKey(key, changed)),
      action(key, "toggle", key.disabled ? "Enable" : "Disable", () => toggle(key)),
      action(key, "delete", "Delete", () => remove(key), "danger"),
    ],
  },
];

function create() {
  const filter = scopeFilter("mine", () => list.reload());
  const open = () => createKey(filter.user(), (key) => {
    if ([undefined, key.owner].includes(filter.user())) list.set(key);
    announce(`The key ${key.name} was created.`);
  });
  list = pagedTable({
    label: "API keys", list: "keys", columns: COLUMNS, id: "id",
    query: () => ({ user: filter.user(), all: !filter.user() }),
    empty: () => h("div", { class: "empty" },
      h("h3", "No API keys yet"),
      h("p", "A program that cannot log in, such as a vector database, a nightly job or a client of OpenAI's API, sends an API key with each request. A key may embed and tokenize, and nothing else."),
      h("button", { class: "primary", onclick: open }, "Create a key")),
  });
  return h("section", { "aria-labelledby": "keys-title" },
    h("div", { class: "row between" },
      h("h2", { id: "keys-title" }, "API keys"),
      h("button", { class: "primary", onclick: open }, "New key")),
    h("p", { class: "muted" }, "Credentials of programs. They stay valid when you log out or change your password."),
    filter.elements && h("div", { class: "row filters" }, filter.elements),
    list.element);
}

export default { id: "keys", title: "Keys", admin: false, create, shown: () => list.reload() };
