// The page without a login, and the form in the dialog after the end of a session.
import { request } from "./http.js";
import { errorBox, h } from "./dom.js";
import { field, form } from "./manage/form.js";
import { session } from "./session.js";

// `username` is that of the session that ended: only this user sees what the page shows.
export function loginForm(username = "") {
  const name = h("input", { name: "username", autocomplete: "username", required: true, autocapitalize: "none", spellcheck: "false", value: username, readonly: username !== "" });
  const password = h("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  return form({
    children: [field("User name", name), field("Password", password)],
    action: "Log in",
    submit: () => session.login(name.value, password.value),
  });
}

// Whether the service is ready, checked again while it is shown.
function readiness() {
  const badge = h("p", { class: "badge", role: "status" }, "Checking the service…");
  const check = async () => {
    const state = await request("api/ready").then(({ ready }) => (ready ? "up" : "starting"), ({ status }) => (status === 503 ? "starting" : "away"));
    const [kind, text] = {
      up: ["ok", "The service is up"],
      starting: ["warn", "The service is starting, or a part of it does not respond"],
      away: ["bad", "The service does not respond"],
    }[state];
    badge.className = `badge ${kind}`;
    // A screen reader reads only a change.
    if (badge.textContent !== text) badge.textContent = text;
    setTimeout(() => badge.isConnected && check(), 10_000);
  };
  check();
  return badge;
}

// What the service is, whether it is up, how to get access, and the login.
export function loginPage({ cookies, version, error }) {
  return h("div", { class: "welcome" },
    h("section", { class: "stack", "aria-labelledby": "welcome" },
      h("h2", { id: "welcome", class: "title" }, "Sentences as vectors, in 16 languages"),
      h("p", { class: "lead" }, "This service turns a text into 512 numbers. Texts of similar meaning get similar numbers, whatever their language, so that programs can search, compare and group them."),
      readiness()),
    h("section", { class: "card stack", "aria-labelledby": "login" },
      h("h2", { id: "login" }, "Log in"),
      error && [errorBox(error), h("div", { class: "row" }, h("button", { onclick: () => location.reload() }, "Try again"))],
      cookies === "off"
        ? h("p", { class: "notice" }, "Logins in a browser are disabled (COOKIES=off). Use the API with a token or an API key, or ask the operator to enable cookies.")
        : loginForm()),
    h("section", { class: "stack", "aria-labelledby": "access" },
      h("h2", { id: "access" }, "How to get access"),
      h("ul",
        h("li", "Ask the operator of this service for a user name and a password. Administrators add users in the view Users."),
        h("li", "Programs use an API key. Create one after the login, in the view Keys."),
        h("li", "The API works without this page: ", h("a", { href: "docs" }, "documentation of the API"), ", ", h("a", { href: "openapi.json" }, "OpenAPI document"), ".")),
      h("p", { class: "muted small" }, "Model: universal-sentence-encoder-multilingual. MUSE as Service ", version)));
}
