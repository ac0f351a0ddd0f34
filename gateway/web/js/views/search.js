// The view Search: embeds the lines of a text, and finds them by meaning.
import { served } from "../api.js";
import { announce, confirmDialog, errorBox, h, number, replace } from "../dom.js";
import { Engine } from "../search/engine.js";
import { EmbeddingJob } from "../search/job.js";
import { loadForm } from "../search/load.js";
import { progressPanel } from "../search/progress.js";
import { resultsPanel } from "../search/results.js";
import { session } from "../session.js";

const MAX_LINES = 50_000;

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
    const show = (message) => engine === opened && replace(messages, message);
    show(h("p", { class: "notice", role: "status" }, "Reading the text…"));
    try {
      await session.verify();
      const { found, total } = await engine.call("load", { source, limit: MAX_LINES });
      const part = `Use the first ${number(total)}`;
      if (found > total && !(await confirmDialog("The text is too long", `It has ${number(found)} lines that are not blank.`, part))) {
        engine.close();
        return show();
      }
      const { limits, model } = await served();
      await engine.call("allocate", model.dimension);
      start(name, engine, new EmbeddingJob({ engine, total, limits }));
      show();
    } catch (error) {
      engine.close();
      show(errorBox(error));
    }
  }

  function start(name, engine, job) {
    current = { engine, job };
    const results = resultsPanel(current);
    job.addEventListener("change", () => (job.isActive ? addEventListener : removeEventListener)("beforeunload", warn));
    replace(content, progressPanel({ name, job, close }), results.element);
    job.run();
    announce(`Embedding ${name}`);
    results.input.focus();
  }

  session.addEventListener("leave", () => {
    removeEventListener("beforeunload", warn);
    current?.job.stop();
    opened?.close();
  });
  replace(content, form);
  return section;
}

export default { id: "search", title: "Search", admin: false, create };
