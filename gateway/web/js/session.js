// Who is logged in. Tokens are in cookies that scripts cannot read.
import { ApiError } from "./errors.js";
import { request } from "./http.js";

// Other tabs of this page share the cookies.
const tabs = new BroadcastChannel("muse-session");

class Session extends EventTarget {
  user = null;
  // Whether the tokens were rejected while the page was in use: the page keeps its content.
  hasEnded = false;
  #refresh = null;

  // Finds out who is logged in, if anybody. Throws if the service does not respond.
  async start() {
    try {
      this.user = await request("api/user").catch(async (error) => {
        if (!error.isUnauthenticated) throw error;
        await this.refresh();
        return request("api/user");
      });
    } catch (error) {
      if (!error.isUnauthenticated) throw error;
    }
  }

  async login(username, password) {
    await request("login", { method: "POST", body: { username, password }, as: "none" }).catch((error) => {
      // The route sends no reason with this status.
      throw error.status === 401 ? new ApiError(401, error.message, { reason: "BAD_CREDENTIALS" }) : error;
    });
    let user;
    try {
      user = await request("api/user");
    } catch (error) {
      throw error.isUnauthenticated ? cookieError() : error;
    }
    tabs.postMessage(user.username);
    if (this.user && this.user.username !== user.username) return this.leave();
    this.user = user;
    this.hasEnded = false;
    this.dispatchEvent(new Event("change"));
  }

  // Revokes the tokens, and removes what the page shows.
  async logout() {
    await request("logout", { method: "POST", as: "none" });
    tabs.postMessage(null);
    this.leave();
  }

  // Removes what the page shows of the user, and loads it again. Views end their work at this event.
  leave() {
    this.dispatchEvent(new Event("leave"));
    document.body.replaceChildren();
    location.reload();
  }

  // Leaves if the cookies are those of another user now: other pages of this site may log in, too.
  async verify() {
    if (!this.user || this.hasEnded) return;
    const { username } = await request("api/user").catch(() => this.user);
    if (username !== this.user.username) this.leave();
  }

  // Gets a new access token; concurrent calls share one request.
  refresh() {
    this.#refresh ??= request("token/refresh", { method: "POST", as: "none" }).finally(() => (this.#refresh = null));
    return this.#refresh;
  }

  // The tokens are not valid any more: the page asks for a login.
  ended() {
    if (this.hasEnded || !this.user) return;
    this.hasEnded = true;
    this.dispatchEvent(new Event("ended"));
  }

  // Waits for the login after the end of a session; rejects when the signal aborts.
  restored(signal) {
    if (!this.hasEnded) return Promise.resolve();
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      this.addEventListener("change", resolve, { once: true });
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  }
}

// The login succeeded, but the browser sends no cookies.
const cookieError = () => Object.assign(new Error("The browser did not store the session"), {
  advice: "Allow cookies for this site. If the service requires secure cookies, open this page with https.",
});

export const session = new Session();

// The name of who logged in, in another tab, or null after a logout.
tabs.addEventListener("message", ({ data }) => {
  if (data !== (session.user?.username ?? null)) session.leave();
  else if (session.hasEnded) {
    session.hasEnded = false;
    session.dispatchEvent(new Event("change"));
  }
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) session.verify();
});
