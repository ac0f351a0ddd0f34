// The dialogs of API keys: create, show the secret once, change.
import { call } from "../api.js";
import { copyButton, dialog, h } from "../dom.js";
import { session } from "../session.js";
import { checkbox, field, formDialog, select, textInput } from "./form.js";
import { quotaFields } from "./quota.js";
import { curlCommand } from "./shell.js";
import { dateText, name } from "./table.js";

const DAY = 86_400;
const LIFETIMES = [[7, "In 7 days"], [30, "In 30 days"], [90, "In 90 days"], [365, "In 1 year"], [0, "Never"]]
  .map(([days, label]) => [String(days * DAY), label]);
const NAME = { max: 100 };
const BULK = "For jobs without a hurry, such as a nightly import: while your other calls wait, the key gets an eighth of your share.";
const QUOTA = "Limits this key. Its calls also count for the quota of its owner.";

// Asks for the properties of a new key. `created` gets its description when the secret is stored.
export function createKey(user, created) {
  const title = textInput({ placeholder: "nightly job" }, NAME);
  const owner = textInput({ value: user ?? "", required: false, placeholder: session.user.username }, { max: 1024 });
  const lifetime = select({}, LIFETIMES, String(90 * DAY));
  const bulk = h("input", { type: "checkbox" });
  const quota = quotaFields(null, QUOTA);
  formDialog({
    title: "New API key",
    action: "Create key",
    children: [
      field("Name", title, "Tells you later which program uses the key."),
      session.user.role === "admin" ? field("Owner", owner, "Empty for yourself. Calls count for the owner.") : null,
      field("Expires", lifetime, "Programs with an expired key get 401."),
      checkbox(bulk, "Bulk key", BULK),
      quota.element,
    ],
    submit: async () => {
      const key = await call("api/keys", { method: "POST", body: {
        name: title.value, expires_in: Number(lifetime.value), bulk: bulk.checked, quota: quota.value(), user: owner.value || undefined,
      } });
      return () => showSecret(key, () => created(key));
    },
  });
}

// Shows the key, which the service cannot show again: it stores the hash only.
function showSecret({ key, name: title }, stored) {
  const command = curlCommand(key);
  const box = dialog("Copy the API key now",
    h("p", "This is the only time that the key of ", h("strong", name(title)), " is shown. Store it where the program finds it, for example in a secret manager."),
    h("div", { class: "secret" }, h("code", { id: "new-key" }, key), copyButton("Copy key", () => key, { class: "primary" })),
    h("p", "Try it in a terminal:"),
    h("div", { class: "secret" }, h("pre", { tabindex: "0", "aria-label": "curl command" }, command), copyButton("Copy command", () => command)),
    h("p", { class: "muted" }, "Whoever has the key can embed text in the name of its owner. If it leaks, delete it here."),
    h("div", { class: "row end" }, h("button", { type: "button", onclick: () => box.close() }, "I have stored the key")));
  // The key would be lost by a press of Escape, or of the cross.
  box.querySelector(".close").remove();
  box.querySelector(".primary").focus();
  box.addEventListener("cancel", (event) => event.preventDefault());
  box.addEventListener("close", stored);
}

// Asks for changes of a key. `changed` gets the new description; `gone` is called if the key was deleted.
export function editKey(key, { changed, gone }) {
  const title = textInput({ value: key.name }, NAME);
  const expiry = key.expires_at === null ? "Never, as now" : `On ${dateText(key.expires_at)}, as now`;
  const lifetime = select({}, [["", expiry], ...LIFETIMES], "");
  const bulk = h("input", { type: "checkbox", checked: key.bulk });
  const quota = quotaFields(key.quota, QUOTA);
  formDialog({
    title: "Edit API key",
    action: "Save",
    children: [
      field("Name", title),
      field("Expires", lifetime),
      checkbox(bulk, "Bulk key", BULK),
      quota.element,
    ],
    submit: async () => {
      // Only what was changed here: another admin may have changed the rest meanwhile.
      const body = {};
      if (title.value !== key.name) body.name = title.value;
      if (lifetime.value !== "") body.expires_in = Number(lifetime.value);
      if (bulk.checked !== key.bulk) body.bulk = bulk.checked;
      if (JSON.stringify(quota.value()) !== JSON.stringify(key.quota && { tokens: key.quota.tokens, period: key.quota.period })) body.quota = quota.value();
      if (Object.keys(body).length === 0) return null;
      try {
        const now = await call(`api/keys/${encodeURIComponent(key.id)}`, { method: "PATCH", body });
        return () => changed(now);
      } catch (error) {
        if (error.status !== 404) throw error;
        return () => gone(key);
      }
    },
  });
}
