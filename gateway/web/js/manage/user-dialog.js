// The dialogs of users: add, and manage one. The service changes one property per request.
import { call } from "../api.js";
import { announce, confirmDialog, dialog, h } from "../dom.js";
import { session } from "../session.js";
import { field, form, formDialog, newPassword, select, textInput } from "./form.js";
import { quotaFields, quotaText } from "./quota.js";
import { badge, name } from "./table.js";
import { destructiveForm, isOwn, passwordForm, revokeForm, userPath } from "./user-forms.js";

export const ROLES = { user: "User", admin: "Administrator" };

export function addUser(done) {
  const username = textInput({ autocapitalize: "none", maxlength: 64 });
  const password = newPassword("Password");
  const role = select({}, Object.entries(ROLES), "user");
  formDialog({
    title: "New user",
    action: "Add user",
    children: [
      field("Name", username, "At most 64 bytes. Do not mix scripts, such as Latin and Cyrillic. The name cannot be changed later."),
      password.fields,
      field("Role", role, "Administrators manage users, and see the keys and the usage of all."),
    ],
    submit: () => call("api/users", { method: "POST", body: { username: username.value, password: password.input.value, role: role.value } }),
    done,
  });
}

// Displays all changes of a user, and updates the list of users.
export function manageUser(user, list) {
  async function send(path, options, text) {
    const now = await call(path, options);
    // The change may revoke the tokens of this page, or concern what it displays: it starts again.
    if (isOwn(user)) return session.leave();
    box.close();
    if (now) list.set(now);
    announce(text);
  }
  const patch = (body, text) => send(userPath(user), { method: "PATCH", body }, text);
  const section = (title, current, content) => h("details", { class: "section", name: "manage-user" },
    h("summary", title, " ", h("span", { class: "muted" }, current)), content);

  const role = select({}, Object.entries(ROLES), user.role);
  const quota = quotaFields(user.quota, "Counts the requests of the user and of all their API keys.");

  const box = dialog("Manage user",
    h("p", h("strong", name(user.username)), isOwn(user) && badge("", "your own account")),
    h("div", { class: "sections" },
      section("Role", ROLES[user.role], form({
        children: field("New role", role, "Takes effect at once."),
        action: "Save role",
        submit: async () => {
          const text = "You will not be able to manage users any more. Only another administrator can undo this.";
          if (isOwn(user) && role.value === "user" && !(await confirmDialog("Give up your own role?", text, "Become a user"))) return;
          await patch({ role: role.value }, `The role of ${user.username} is ${ROLES[role.value]}.`);
        },
      })),
      section("Quota", quotaText(user.quota), form({
        children: quota.element,
        action: "Save quota",
        submit: () => patch({ quota: quota.value() }, `The quota of ${user.username} is ${quotaText(quota.value())}.`),
      })),
      section("Password", null, passwordForm(user, send)),
      section("Access tokens", null, revokeForm(user, send)),
      user.disabled
        ? section("Enable", "disabled", form({
          children: h("p", "The user can log in again. The API keys were deleted when the user was disabled, and do not come back."),
          action: "Enable user",
          submit: () => patch({ disabled: false }, `The user ${user.username} is enabled.`),
        }))
        : section("Disable", null, destructiveForm(user, {
          action: "Disable user",
          text: "Prevents logins, revokes all access and refresh tokens, and deletes all API keys for good: they do not come back when the user is enabled again.",
          submit: () => patch({ disabled: true }, `The user ${user.username} is disabled.`),
        })),
      section("Remove", null, destructiveForm(user, {
        action: "Remove user",
        text: "Removes the user with all access and refresh tokens and API keys. The usage remains. This cannot be undone.",
        submit: async () => {
          await send(userPath(user), { method: "DELETE" }, `The user ${user.username} was removed.`);
          list.remove(user);
        },
      }))));
}
