// Users, for admins: list, add, manage.
import { call } from "../api.js";
import { announce, h } from "../dom.js";
import { quotaText } from "../manage/quota.js";
import { date, name, pagedTable } from "../manage/table.js";
import { ROLES, addUser, manageUser } from "../manage/user-dialog.js";
import { session } from "../session.js";

let list;

function create() {
  const manage = (user) => manageUser(user, {
    changed: (now) => list.set(now, "manage"),
    gone: () => list.remove(user),
  });
  const columns = () => [
    { title: "Name", cell: ({ username }) => [h("strong", name(username)), username === session.user.username ? h("span", { class: "badge" }, "you") : null] },
    { title: "Role", cell: ({ role }) => ROLES[role] },
    { title: "State", cell: ({ disabled }) => (disabled ? h("span", { class: "badge warn" }, "Disabled") : h("span", { class: "badge ok" }, "Active")) },
    { title: "Quota", cell: ({ quota }) => quotaText(quota) },
    { title: "Added", cell: (user) => date(user.created_at) },
    {
      title: "Actions", class: "row-actions",
      cell: (user) => h("button", { type: "button", class: "small-button", "data-action": "manage", "aria-label": `Manage user ${user.username}`, onclick: () => manage(user) }, "Manage"),
    },
  ];
  list = pagedTable({
    label: "List of users", columns, id: (user) => user.username,
    load: async (page, signal) => {
      const { users, next } = await call("api/users", { query: page, signal });
      return { items: users, next };
    },
    empty: () => h("p", "There are no users."),
  });
  const add = () => addUser((user) => {
    list.set(user, "manage");
    announce(`The user ${user.username} was added.`);
  });
  return h("section", { "aria-labelledby": "users-title" },
    h("div", { class: "view-head" },
      h("h2", { id: "users-title" }, "Users"),
      h("button", { type: "button", class: "primary", onclick: add }, "New user")),
    h("p", { class: "muted" }, "Who can log in. Programs use API keys, which belong to a user."),
    list.element);
}

export default { id: "users", title: "Users", admin: true, create, shown: () => list.reload() };
