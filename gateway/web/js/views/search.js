import { h } from "../dom.js";

export default {
  id: "search",
  title: "Search",
  admin: false,
  create: () => h("section", { "aria-labelledby": "search-title" }, h("h2", { id: "search-title" }, "Search")),
};
