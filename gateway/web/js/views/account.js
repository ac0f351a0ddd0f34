import { h } from "../dom.js";

export default {
  id: "account",
  title: "Account",
  admin: false,
  create: () => h("section", { "aria-labelledby": "account-title" }, h("h2", { id: "account-title" }, "Account")),
};
