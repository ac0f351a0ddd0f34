// Users, for admins: list, add, manage.
import { announce, h } from "../dom.js";
import { quotaText } from "../manage/quota.js";
import { badge, date, name, pagedTable } from "../manage/table.js";
import { ROLES, addUser, manageUser } from "../manage/user-dialog.js";
import { isOwn } from "../manage/user-forms.js";

let list;

const COLUMNS = [
  { title: "Name", cell: (user) => [h("strong", name(user.username)), isOwn(user) && badge("", "you")] },
  { title: "Role", cell: ({ role }) => ROLES[role] },
  { title: "State", cell: ({ disabled }) => (disabled ? badge("warn", "Disabled") : badge("ok", "Active")) },
  { title: "Quota", cell: ({ quota }) => quotaText(quota) },
  { title: "Added", cell: (user) => date(user.created_at) },
  {
    title: "Actions", class: "row-actions",
    cell: (user) => h("button", { id: `manage-${user.username}`, class: "small-button", "aria-label": `Manage user ${user.username}`, onclick: () => manageUser(user, list) }, "Manage"),
  },
];

function create() {
  list = pagedTable({ label: "Users", list: "users", columns: COLUMNS, id: "username", empty: () => null });
  const add = () => addUser((user) => {
    list.set(user);
    announce(`The user ${user.username} was added.`);
  });
  return h("section", { "aria-labelledby": "users-title" },
    h("div", { class: "row between" },
      h("h2", { id: "users-title" }, "Users"),
      h("button", { class: "primary", onclick: add }, "New user")),
    h("p", { class: "muted" }, "Who can log in. Programs use API keys, which belong to a user."),
    list.element);
}

export default { id: "users", title: "Users", admin: true, create, shown: () => list.reload() };
