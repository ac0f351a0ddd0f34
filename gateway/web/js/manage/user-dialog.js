// The dialogs of users: add, and manage one. The service changes one property per request.
import { call } from "../api.js";
import { announce, confirmDialog, dialog, h } from "../dom.js";
import { field, form, formDialog, newPassword, select, textInput } from "./form.js";
import { quotaFields, quotaText } from "./quota.js";
import { name } from "./table.js";
import { destructiveForm, isOwn, passwordForm, revokeForm, userPath } from "./user-forms.js";

export const ROLES = { user: "User", admin: "Administrator" };

export function addUser(added) {
  const username = textInput({ autocapitalize: "none" }, { max: 64 });
  const password = newPassword("Password");
  const role = select({}, Object.entries(ROLES), "user");
  formDialog({
    title: "New user",
    action: "Add user",
    children: [
      field("Name", username, "At most 64 bytes, letters of one script. It cannot be changed later."),
      password.element,
      field("Role", role, "Administrators manage users, and see the keys and the usage of all."),
    ],
    submit: async () => {
      const body = { username: username.value, password: password.input.value, role: role.value };
      const user = await call("api/users", { method: "POST", body });
      return () => added(user);
    },
  });
}

// Displays all changes of a user. `changed` gets the new description; `gone` is called if the user was removed, here or elsewhere.
export function manageUser(user, { changed, gone }) {
  async function send(path, options, text) {
    let now;
    try {
      now = await call(path, options);
    } catch (error) {
      if (error.reason === "NO_SUCH_USER") gone();
      throw error;
    }
    box.close();
    if (options.method === "DELETE" && path === userPath(user)) gone();
    else changed(now ?? user);
    announce(text);
  }
  // These changes revoke the user's tokens or change what the user may do. If they are those of this page, it starts again.
  const sendAndRestart = async (...request) => {
    await send(...request);
    if (isOwn(user)) location.reload();
  };
  const patch = (body) => [userPath(user), { method: "PATCH", body }];
  const section = (title, current, content) => h("details", { class: "section", name: "manage-user" },
    h("summary", h("span", title), h("span", { class: "muted" }, current)), content);

  const role = select({}, Object.entries(ROLES), user.role);
  const quota = quotaFields(user.quota, "Counts the calls of the user and of all their API keys, also those earlier in the period.");

  const box = dialog("Manage user",
    h("p", h("strong", name(user.username)), isOwn(user) ? h("span", { class: "badge" }, "your own account") : null),
    h("div", { class: "sections" },
      section("Role", ROLES[user.role], form({
        children: field("New role", role, "Takes effect at once."),
        action: "Save role",
        submit: async () => {
          const text = "You will not be able to manage users any more. Only another administrator can undo this.";
          if (isOwn(user) && role.value === "user" && !(await confirmDialog("Give up your own role?", text, "Become a user"))) return;
          await sendAndRestart(...patch({ role: role.value }), `The role of ${user.username} is ${ROLES[role.value]}.`);
        },
      })),
      section("Quota", quotaText(user.quota), form({
        children: quota.element,
        action: "Save quota",
        submit: () => send(...patch({ quota: quota.value() }), `The quota of ${user.username} is ${quotaText(quota.value())}.`),
      })),
      section("Password", null, passwordForm(user, sendAndRestart)),
      section("Sessions", null, revokeForm(user, sendAndRestart)),
      user.disabled
        ? section("Enable", "disabled", form({
          children: h("p", "The user can log in again. The API keys were deleted when the user was disabled, and do not come back."),
          action: "Enable user",
          submit: () => send(...patch({ disabled: false }), `The user ${user.username} is enabled.`),
        }))
        : section("Disable", null, destructiveForm(user, {
          action: "Disable user",
          text: "Prevents logins, revokes all tokens, and deletes all API keys for good: they do not come back when the user is enabled again.",
          submit: () => sendAndRestart(...patch({ disabled: true }), `The user ${user.username} is disabled.`),
        })),
      section("Remove", null, destructiveForm(user, {
        action: "Remove user",
        text: "Removes the user with all tokens and API keys. The usage remains. This cannot be undone.",
        submit: () => sendAndRestart(userPath(user), { method: "DELETE" }, `The user ${user.username} was removed.`),
      }))));
}
