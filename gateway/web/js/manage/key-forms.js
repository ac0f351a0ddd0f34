// The dialogs of API keys: create, show the secret once, change.
import { call } from "../api.js";
import { copyButton, dialog, h } from "../dom.js";
import { session } from "../session.js";
import { shellWord } from "../try/code.js";
import { checkbox, field, formDialog, select, textInput } from "./form.js";
import { quotaFields } from "./quota.js";
import { dateText, name } from "./table.js";

const DAY = 86_400;
const LIFETIMES = [[7, "In 7 days"], [30, "In 30 days"], [90, "In 90 days"], [365, "In 1 year"], [0, "Never"]]
  .map(([days, label]) => [String(days * DAY), label]);

// The fields of a new key, or of one that is changed; `value()` is as the API takes it.
function keyFields(key) {
  const title = textInput({ value: key?.name, maxlength: 100, placeholder: "nightly job" });
  const current = key && ["", key.expires_at === null ? "Never, as now" : `On ${dateText(key.expires_at)}, as now`];
  const lifetime = select({}, current ? [current, ...LIFETIMES] : LIFETIMES, current ? "" : String(90 * DAY));
  const bulk = checkbox({ checked: key?.bulk });
  const quota = quotaFields(key?.quota, "Limits this key. Its requests also count for the quota of its owner.");
  return {
    elements: [
      field("Name", title, "The program that uses the key."),
      field("Expires", lifetime, "After that the service rejects the key (HTTP status 401)."),
      field("Bulk key", bulk, "For background jobs: while your other requests wait, this key gets an eighth of your share."),
      quota.element,
    ],
    value: () => ({ name: title.value, expires_in: lifetime.value ? Number(lifetime.value) : undefined, bulk: bulk.checked, quota: quota.value() }),
  };
}

// Asks for the properties of a new key. `created` gets its description when the secret is stored.
export function createKey(user, created) {
  const fields = keyFields();
  const owner = textInput({ required: false, value: user, placeholder: session.user.username });
  formDialog({
    title: "New API key",
    action: "Create key",
    children: [fields.elements, session.user.role === "admin" && field("Owner", owner, "The user whose usage and quota the key counts for. Empty: yourself.")],
    submit: () => call("api/keys", { method: "POST", body: { ...fields.value(), user: owner.value || undefined } }),
    done: (key) => showSecret(key, () => created(key)),
  });
}

// Shows the key, which the service cannot show again: it stores the hash only.
function showSecret({ key, name: title }, stored) {
  const command = [
    `curl ${shellWord(new URL("embed", document.baseURI).href)}`,
    `-H 'Authorization: Bearer ${key}'`,
    "-H 'Content-Type: application/json'",
    `-d '{"sentence": ["Hello, world"]}'`,
  ].join(" \\\n  ");
  const box = dialog("Copy the API key now",
    h("p", "This is the only time that the key of ", h("strong", name(title)), " is shown. Store it where the program finds it."),
    h("div", { class: "secret" }, h("code", key), copyButton("Copy key", () => key, { class: "primary" })),
    h("p", "Try it in a terminal:"),
    h("div", { class: "secret" }, h("pre", { tabindex: "0", "aria-label": "curl command" }, command), copyButton("Copy command", () => command)),
    h("div", { class: "row end" }, h("button", { onclick: () => box.close() }, "I have stored the key")));
  // The key would be lost by a press of Escape, or of the cross.
  box.querySelector(".close").remove();
  box.querySelector(".primary").focus();
  box.addEventListener("cancel", (event) => event.preventDefault());
  box.addEventListener("close", stored);
}

// Asks for changes of a key. `changed` gets the new description.
export function editKey(key, changed) {
  const fields = keyFields(key);
  formDialog({
    title: "Edit API key",
    action: "Save",
    children: fields.elements,
    submit: () => call(`api/keys/${key.id}`, { method: "PATCH", body: fields.value() }),
    done: changed,
  });
}
