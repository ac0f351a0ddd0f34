import { h } from "../dom.js";

export default {
  id: "try",
  title: "Try it",
  admin: false,
  create: () => h("section", { "aria-labelledby": "try-title" }, h("h2", { id: "try-title" }, "Try it")),
};
