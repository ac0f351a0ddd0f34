// Whose keys or usage an admin sees: their own, those of all users, or those of one.
import { call } from "../api.js";
import { h, replace, uniqueId } from "../dom.js";
import { session } from "../session.js";
import { field, select } from "./form.js";

// Lists of one user fail for an unknown name, which was typed.
export function explainName(error) {
  if (error.reason === "NO_SUCH_USER") error.advice = "Check the spelling of the name.";
  return error;
}

// `value()` is {mine}, {all} or {user}. Users who are not admins always see their own.
export function scopeFilter(initial, changed) {
  const names = h("datalist", { id: uniqueId("users") });
  const scope = select({ onchange: () => update() }, [["mine", "My own"], ["all", "All users"], ["user", "One user…"]], initial);
  const user = h("input", { type: "search", list: names.id, autocomplete: "off", spellcheck: "false", onchange: () => user.value && changed() });
  const userField = field("User", user);
  userField.hidden = true;
  const update = () => {
    userField.hidden = scope.value !== "user";
    if (userField.hidden) return changed();
    suggest();
    if (user.value) changed();
  };
  // Suggestions only: any name can be typed, also that of a removed user.
  const suggest = async () => {
    const { users } = await call("api/users", { query: { limit: 1000 } }).catch(() => ({ users: [] }));
    replace(names, users.map(({ username }) => h("option", { value: username })));
  };
  return {
    element: session.user.role === "admin" ? [field("Show", scope), userField, names] : [],
    value: () => (session.user.role !== "admin" || scope.value === "mine" || (scope.value === "user" && !user.value)
      ? { mine: true } : scope.value === "all" ? { all: true } : { user: user.value }),
  };
}
