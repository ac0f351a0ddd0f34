// The view Search: embeds the lines of a text, and finds them by meaning.
import { call } from "../api.js";
import { announce, confirmDialog, errorBox, h, number, replace } from "../dom.js";
import { session } from "../session.js";
import { Engine } from "../search/engine.js";
import { EmbeddingJob } from "../search/job.js";
import { loadForm } from "../search/load.js";
import { progressPanel } from "../search/progress.js";
import { resultsPanel } from "../search/results.js";

const MAX_LINES = 50_000;
// Longer than the timeouts of the service: a connection that was lost without notice.
const REQUEST_TIMEOUT_MS = 150_000;

const send = (sentence, signal) => call("embed", {
  method: "POST", as: "bytes", body: { sentence, format: "npy" }, signal: AbortSignal.any([signal, AbortSignal.timeout(REQUEST_TIMEOUT_MS)]),
});
const restored = (signal) => session.restored(signal);
const warn = (event) => event.preventDefault();

function create() {
  const messages = h("div");
  const content = h("div", { class: "stack" });
  const section = h("section", { "aria-labelledby": "search-title" },
    h("div", { class: "stack tight" },
      h("h2", { id: "search-title" }, "Search"),
      h("p", { class: "muted" }, "Load a text, and find its lines by meaning, in any of the model's languages.")),
    messages, content);
  const form = loadForm(section, open);
  // The engine and the job of the shown text, and the engine of the text that was opened last.
  let current = null, opened = null;
  addEventListener("online", () => current?.job.retryNow());

  async function close() {
    const { engine, job } = current;
    if (job.done && !(await confirmDialog("Load another text?", "The vectors of this one are discarded.", "Discard"))) return false;
    job.stop();
    engine.close();
    current = null;
    replace(content, form);
    form.querySelector("input").focus();
    return true;
  }

  async function open(name, source) {
    if (current && !(await close())) return;
    opened?.close();
    const engine = (opened = new Engine());
    const fail = (error) => {
      engine.close();
      if (engine === opened) replace(messages, error && errorBox(error));
    };
    replace(messages, h("p", { class: "notice", role: "status" }, "Reading the text…"));
    try {
      const text = await engine.call("load", { source, limit: MAX_LINES });
      const start = async () => {
        const { limits, model: { dimension } } = await call("api/status");
        await engine.call("allocate", dimension);
        show({ name, text, engine, dimension, job: new EmbeddingJob({ engine, total: text.rows, send, restored, limits }) });
      };
      if (text.used === text.lines - text.blank) await start();
      else offerFirstLines(text, () => start().catch(fail), fail);
    } catch (error) {
      fail(error);
    }
  }

  function offerFirstLines({ lines, blank, used }, start, cancel) {
    const accept = h("button", { type: "button", class: "primary", onclick: start }, `Use the first ${number(used)}`);
    replace(messages, h("div", { class: "notice warn", role: "alert" },
      h("p", `The text has ${number(lines - blank)} lines that are not blank; at most ${number(used)} can be searched.`),
      h("div", { class: "row" }, accept, h("button", { type: "button", onclick: () => cancel() }, "Cancel"))));
    accept.focus();
  }

  function show(text) {
    const { job, name } = (current = text);
    const results = resultsPanel(text);
    job.addEventListener("change", () => (job.isActive ? addEventListener : removeEventListener)("beforeunload", warn));
    replace(messages);
    replace(content, progressPanel({ ...text, close }), results.element);
    job.run();
    announce(`Embedding ${name}`);
    results.input.focus();
  }

  replace(content, form);
  return section;
}

export default { id: "search", title: "Search", admin: false, create };
