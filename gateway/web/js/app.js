// Start of the page: the session, the navigation, and the views by the hash of the URL.
import { dialog, errorBox, h, replace } from "./dom.js";
import { loginForm, loginPage } from "./login.js";
import { session } from "./session.js";
import account from "./views/account.js";
import keys from "./views/keys.js";
import search from "./views/search.js";
import status from "./views/status.js";
import tryIt from "./views/try.js";
import usage from "./views/usage.js";
import users from "./views/users.js";

const VIEWS = [tryIt, search, keys, usage, users, status, account];
const main = document.getElementById("main");
const nav = document.getElementById("nav");
const meta = (name) => document.querySelector(`meta[name="muse-${name}"]`).content;

// The elements of the views that were visited: a hidden view goes on with its work.
const elements = new Map();
let current = null;

const allowed = () => VIEWS.filter((view) => !view.admin || session.user.role === "admin");

function showLogin(error) {
  document.title = "Log in · MUSE as Service";
  replace(main, loginPage({ cookies: meta("cookies"), version: meta("version"), error }));
}

function showView() {
  const view = allowed().find(({ id }) => id === location.hash.slice(1)) ?? tryIt;
  if (view === current) return;
  const previous = current;
  current = view;
  if (!elements.has(view)) {
    elements.set(view, view.create());
    main.append(elements.get(view));
  }
  for (const [{ id }, element] of elements) element.hidden = id !== view.id;
  document.title = `${view.title} · MUSE as Service`;
  for (const link of document.querySelectorAll(".top a")) link.ariaCurrent = link.hash === `#${view.id}` ? "page" : null;
  nav.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  previous?.hidden?.();
  view.shown?.();
  if (previous) {
    // Screen readers continue at the heading of the new view.
    const heading = elements.get(view).querySelector("h2");
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

const link = (view) => h("a", { href: `#${view.id}` }, view.title);

function accountMenu() {
  const errors = h("div");
  const logout = () => session.logout().catch((error) => replace(errors, errorBox(error)));
  const menu = h("details", { class: "menu" },
    h("summary", h("span", { class: "menu-name", dir: "auto" }, session.user.username)),
    h("div", { class: "menu-items" }, link(account), h("button", { onclick: logout }, "Log out"), errors));
  menu.addEventListener("keydown", ({ key }) => {
    if (key !== "Escape") return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
  document.addEventListener("click", ({ target }) => {
    if (!menu.contains(target) || target.matches("a")) menu.open = false;
  });
  return menu;
}

// The session ended while the page was in use: a login over the page keeps its content.
function showSessionEnded() {
  const element = dialog("Your session has ended",
    h("p", "Log in again to go on. Everything on this page stays as it is."),
    loginForm(session.user.username),
    h("div", { class: "row end" }, h("button", { class: "quiet", onclick: () => session.leave() }, "Discard the page and log in as another user")));
  element.querySelector(".close").remove();
  element.querySelector("input[type=password]").focus();
  element.addEventListener("cancel", (event) => event.preventDefault());
  // Browsers let the user close any dialog in the end.
  element.addEventListener("close", () => session.hasEnded && showSessionEnded());
  session.addEventListener("change", () => element.close(), { once: true });
}

function start() {
  replace(main);
  nav.hidden = false;
  replace(nav, h("ul", allowed().filter((view) => view !== account).map((view) => h("li", link(view)))));
  replace(document.getElementById("account"), accountMenu());
  addEventListener("hashchange", showView);
  showView();
}

session.addEventListener("ended", showSessionEnded);
// The target of the link is not a view.
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

try {
  if (meta("cookies") !== "off") await session.start();
  if (session.user) start();
  else showLogin();
} catch (error) {
  showLogin(error);
}
if (!session.user) session.addEventListener("change", start, { once: true });
