// The page without a login, and the form in the dialog after the end of a session.
import { request } from "./http.js";
import { errorBox, h, replace, uniqueId } from "./dom.js";
import { session } from "./session.js";

// `username` is that of the session that ended: only this user sees what the page shows.
export function loginForm(username = "") {
  const ids = { name: uniqueId("name"), password: uniqueId("password") };
  const name = h("input", { id: ids.name, name: "username", autocomplete: "username", required: true, autocapitalize: "none", spellcheck: "false", value: username, readonly: username !== "" });
  const password = h("input", { id: ids.password, name: "password", type: "password", autocomplete: "current-password", required: true });
  const errors = h("div");
  const button = h("button", { class: "primary" }, "Log in");
  const form = h("form", { class: "stack" },
    h("div", { class: "field" }, h("label", { for: ids.name }, "User name"), name),
    h("div", { class: "field" }, h("label", { for: ids.password }, "Password"), password),
    errors, h("div", { class: "row" }, button));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    button.textContent = "Logging in…";
    replace(errors);
    try {
      await session.login(name.value, password.value);
    } catch (error) {
      replace(errors, errorBox(error));
      if (error.reason === "BAD_CREDENTIALS") password.select();
    } finally {
      button.disabled = false;
      button.textContent = "Log in";
    }
  });
  return form;
}

// Whether the service is ready, checked again while it is shown.
function readiness() {
  const badge = h("p", { class: "badge", role: "status" }, "Checking the service…");
  const check = async () => {
    let [kind, text] = ["warn", "The service is starting, or a part of it does not respond"];
    try {
      if ((await request("api/ready")).ready) [kind, text] = ["ok", "The service is up"];
    } catch (error) {
      if (error.status !== 503) [kind, text] = ["bad", "The service does not respond"];
    }
    badge.className = `badge ${kind}`;
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
      error ? [errorBox(error), h("div", { class: "row" }, h("button", { type: "button", onclick: () => location.reload() }, "Try again"))] : null,
      cookies === "off"
        ? h("div", { class: "notice" },
          h("p", h("strong", "Logins in a browser are disabled.")),
          h("p", "The service runs with COOKIES=off, so this page cannot stay logged in. Use the API with a token or an API key, or ask the operator to enable cookies."))
        : loginForm()),
    h("section", { class: "stack", "aria-labelledby": "access" },
      h("h2", { id: "access" }, "How to get access"),
      h("ul",
        h("li", "Ask the operator of this service for a user name and a password. Administrators add users in the view Users."),
        h("li", "Programs use an API key. Create one after the login, in the view Keys."),
        h("li", "The API works without this page: ", h("a", { href: "docs" }, "documentation of the API"), ", ", h("a", { href: "openapi.json" }, "OpenAPI document"), ".")),
      h("p", { class: "muted small" }, "Model: universal-sentence-encoder-multilingual. MUSE as Service ", version)));
}
