// The state of the embedding job: progress, rate, time left, waits, errors, skipped lines.
import { announce, duration, errorBox, h, number, replace } from "../dom.js";

const REFRESH_MS = 500;
// Of which the texts are displayed.
const MAX_SKIPPED = 100;

const lines = (n) => `${number(n)} line${n === 1 ? "" : "s"}`;

const cause = ({ status }) => (status === 429 ? "The service is busy" : "The service does not respond");

// The class of a badge, and its text.
const STATES = {
  done: (job) => ["ok", `${lines(job.done)} embedded`],
  stopped: (job) => ["", `Stopped; ${lines(job.done)} can be searched`],
  login: () => ["warn", "Waiting for your login"],
  waiting: (job) => ["warn", `${cause(job.error)}, retrying in ${duration(Math.max(1, Math.ceil((job.retryAt - Date.now()) / 1000)))}`],
  running: () => ["", "Running"],
};

// `close` is called for another text.
export function progressPanel({ name, job, close }) {
  const bar = h("progress", { id: "search-progress", max: job.total });
  const numbers = h("span", { class: "small search-numbers" });
  const progress = h("div", { class: "stack tight" }, h("div", { class: "row between" }, h("label", { for: "search-progress" }, "Embedding"), numbers), bar);
  const errors = h("div");
  const badge = h("span");
  const skipped = h("details", { class: "small", hidden: true });
  const stop = h("button", { onclick: () => job.stop() }, "Stop");
  const resume = h("button", { class: "primary", onclick: () => job.run() }, "Continue");
  let state, skippedCount = 0;

  function showState() {
    state = job.state;
    progress.hidden = state === "done";
    stop.hidden = !job.isActive;
    resume.hidden = state !== "stopped";
    replace(errors, state === "stopped" && job.error && errorBox(job.error));
    // Not of a text that was closed.
    if (state !== "running" && badge.isConnected) announce(STATES[state](job)[1]);
  }

  function show() {
    const { processed, total, rate } = job;
    if (job.state !== state) showState();
    const [kind, message] = STATES[state](job);
    badge.className = `badge ${kind}`;
    badge.textContent = message;
    bar.value = processed;
    const speed = state === "running" && rate > 0 ? ` · ${number(Math.ceil(rate))} lines/s · ${duration(Math.ceil((total - processed) / rate))} left` : "";
    numbers.textContent = `${Math.floor((100 * processed) / total)} % · ${number(processed)} of ${lines(total)}${speed}`;
    if (job.skipped.length > skippedCount) showSkipped();
  }

  function showSkipped() {
    skippedCount = job.skipped.length;
    skipped.hidden = false;
    replace(skipped, h("summary", `${lines(skippedCount)} skipped`),
      h("ul", job.skipped.slice(0, MAX_SKIPPED).map(({ line, text, reason }) =>
        h("li", h("strong", `Line ${number(line)}: `), `${reason} `, h("bdi", { class: "muted" }, text.slice(0, 80))))));
  }

  let timer;
  job.addEventListener("change", () => {
    if (job.state !== state) show();
    if (!job.isActive) timer = clearInterval(timer);
    else timer ??= setInterval(show, REFRESH_MS);
  });

  return h("div", { class: "card stack" },
    h("div", { class: "row between" },
      h("div", { class: "stack tight" }, h("h3", { dir: "auto" }, name), badge),
      h("div", { class: "row" }, stop, resume, h("button", { onclick: close }, "Load another text"))),
    progress, errors, skipped);
}
