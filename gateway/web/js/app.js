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
const accountMenu = document.getElementById("account");
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
  const isFirst = current === null;
  current?.hidden?.();
  if (current) elements.get(current).hidden = true;
  current = view;
  if (!elements.has(view)) {
    elements.set(view, view.create());
    main.append(elements.get(view));
  }
  elements.get(view).hidden = false;
  document.title = `${view.title} · MUSE as Service`;
  for (const link of document.querySelectorAll(".top a[data-view]")) {
    if (link.dataset.view === view.id) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  nav.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  view.shown?.();
  if (!isFirst) {
    // Screen readers continue at the heading of the new view.
    const heading = elements.get(view).querySelector("h2");
    heading.tabIndex = -1;
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }
}

const link = (view) => h("a", { href: `#${view.id}`, "data-view": view.id }, view.title);

function showNavigation() {
  nav.hidden = false;
  replace(nav, h("ul", allowed().filter((view) => view !== account).map((view) => h("li", link(view)))));
  const errors = h("div");
  const logout = h("button", { type: "button", class: "quiet" }, "Log out");
  logout.addEventListener("click", async () => {
    logout.disabled = true;
    try {
      await session.logout();
    } catch (error) {
      logout.disabled = false;
      replace(errors, errorBox(error));
    }
  });
  const menu = h("details", { class: "menu" },
    h("summary", h("span", { class: "menu-name", dir: "auto" }, session.user.username)),
    h("div", { class: "menu-items" },
      h("p", { class: "muted small" }, session.user.role === "admin" ? "Administrator" : "User"),
      link(account), logout, errors));
  menu.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !menu.open) return;
    menu.open = false;
    menu.querySelector("summary").focus();
  });
  document.addEventListener("click", (event) => {
    if (!menu.contains(event.target) || event.target.closest("a")) menu.open = false;
  });
  replace(accountMenu, menu);
}

// The session ended while the page was in use: a login over the page keeps its content.
function showSessionEnded() {
  const element = dialog("Your session has ended",
    h("p", "Log in again to go on. Everything on this page stays as it is."),
    loginForm(session.user.username),
    h("p", { class: "small muted" }, "Not you? ", h("button", { type: "button", class: "link", onclick: () => location.reload() }, "Discard this page"), " and log in as another user."));
  element.querySelector(".close").remove();
  element.querySelector("input[type=password]").focus();
  element.addEventListener("cancel", (event) => event.preventDefault());
  // Browsers let the user close any dialog in the end.
  element.addEventListener("close", () => session.hasEnded && showSessionEnded());
  session.addEventListener("change", () => element.close(), { once: true });
}

function start() {
  replace(main);
  showNavigation();
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
