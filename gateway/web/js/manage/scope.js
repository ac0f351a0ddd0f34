// Whose keys or usage an admin sees: their own, those of all users, or those of one.
import { session } from "../session.js";
import { field, select, textInput } from "./form.js";

// `user()` is a name, or undefined for all users. Users who are not admins always see their own.
export function scopeFilter(initial, changed) {
  const scope = select({ onchange: update }, [["mine", "My own"], ["all", "All users"], ["user", "One user…"]], initial);
  const user = textInput({ type: "search", required: false, placeholder: "Name, then Enter", onchange: update });
  const userField = field("User", user);
  userField.hidden = true;
  function update() {
    userField.hidden = scope.value !== "user";
    if (userField.hidden || user.value) changed();
  }
  const { username, role } = session.user;
  const users = { mine: () => username, all: () => undefined, user: () => user.value || username };
  const isAdmin = role === "admin";
  return {
    elements: isAdmin && [field("Show", scope), userField],
    user: () => (isAdmin ? users[scope.value]() : username),
  };
}
