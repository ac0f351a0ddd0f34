import { h } from "../dom.js";

export default {
  id: "users",
  title: "Users",
  admin: true,
  create: () => h("section", { "aria-labelledby": "users-title" }, h("h2", { id: "users-title" }, "Users")),
};
