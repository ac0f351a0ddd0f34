// The forms that revoke tokens, of one's own account and of users. The `text` of `send(path, options, text)`
// tells the admin what changed.
import { ApiError } from "../api.js";
import { confirmDialog, h } from "../dom.js";
import { session } from "../session.js";
import { checkbox, field, form, newPassword, textInput } from "./form.js";
import { name } from "./table.js";

export const userPath = ({ username }) => `api/users/${encodeURIComponent(username)}`;

export const isOwn = ({ username }) => username === session.user.username;

const endsSession = (user) => isOwn(user) && " This ends your session, too: log in again.";

const keysField = (box) => field("Also delete the API keys", box, "For an account that was compromised: its keys stay valid otherwise.");

export function passwordForm(user, send) {
  const current = session.user.role === "admin" ? null : textInput({ type: "password", autocomplete: "current-password" });
  const next = newPassword("New password");
  const keys = checkbox();
  return form({
    children: [
      // Password managers store the password for this name.
      h("input", { autocomplete: "username", value: user.username, readonly: true, hidden: true }),
      current && field("Current password", current),
      next.fields, keysField(keys),
      h("p", { class: "muted" }, "All access and refresh tokens are revoked: log in again with the new password."),
    ],
    action: "Change password",
    submit: async () => {
      const body = { password: next.input.value, delete_keys: keys.checked, current_password: current?.value };
      try {
        await send(userPath(user), { method: "PATCH", body }, `The password of ${user.username} was changed.`);
      } catch (error) {
        if (error.reason !== "BAD_CREDENTIALS") throw error;
        throw new ApiError(error.status, "The current password is wrong", error);
      }
    },
  });
}

// A form without fields of its own, which asks before it sends the request.
export const destructiveForm = (user, { action, text, children, submit }) => form({
  children: [h("p", text, endsSession(user)), children],
  action,
  kind: "danger",
  submit: async () => {
    if (await confirmDialog(`${action}?`, [h("strong", name(user.username)), ": ", text, endsSession(user)], action)) await submit();
  },
});

export function revokeForm(user, send) {
  const keys = checkbox();
  return destructiveForm(user, {
    action: isOwn(user) ? "Log out everywhere" : "Revoke access tokens",
    text: "Revokes all access and refresh tokens, in all browsers and programs.",
    children: keysField(keys),
    submit: () => send(`${userPath(user)}/tokens`, { method: "DELETE", query: { delete_keys: keys.checked } }, `All access and refresh tokens of ${user.username} were revoked.`),
  });
}
