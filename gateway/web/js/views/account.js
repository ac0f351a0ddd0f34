// One's own account: quota, password, log out everywhere.
import { call } from "../api.js";
import { errorBox, h, replace } from "../dom.js";
import { quotaState } from "../manage/quota.js";
import { date, name } from "../manage/table.js";
import { ROLES } from "../manage/user-dialog.js";
import { passwordForm, revokeForm } from "../manage/user-forms.js";
import { session } from "../session.js";

const facts = h("div", { class: "card" });

async function show() {
  try {
    const user = await call("api/user");
    replace(facts, h("dl", { class: "facts" },
      h("dt", "Name"), h("dd", name(user.username)),
      h("dt", "Role"), h("dd", ROLES[user.role]),
      h("dt", "Added"), h("dd", date(user.created_at)),
      h("dt", "Quota"), h("dd", user.quota ? await quotaState(user) : "none")));
  } catch (error) {
    replace(facts, errorBox(error));
  }
}

function create() {
  // The tokens of this page are revoked: it starts again, with the login.
  const send = async (path, options) => {
    await call(path, options);
    session.leave();
  };
  const card = (title, content) => h("div", { class: "card stack" }, h("h3", title), content);
  return h("section", { "aria-labelledby": "account-title" },
    h("h2", { id: "account-title" }, "Account"), facts,
    h("div", { class: "columns" },
      card("Change your password", passwordForm(session.user, send)),
      card("Log out everywhere", revokeForm(session.user, send))));
}

export default { id: "account", title: "Account", admin: false, create, shown: show };
