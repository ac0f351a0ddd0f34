// The state of the embedding job: progress, rate, time left, waits, errors, skipped lines.
import { announce, bytes, duration, errorBox, h, number, replace } from "../dom.js";

const REFRESH_MS = 500;
const MAX_SKIPPED = 100;

const lines = (n) => `${number(n)} line${n === 1 ? "" : "s"}`;
const button = (label, onclick, kind) => h("button", { type: "button", class: kind, onclick }, label);

function cause({ status }) {
  if (status === 429) return "The service is busy";
  return status === 0 ? "There is no connection to the service" : "A part of the service does not respond";
}

// `text` has the numbers of lines; `close` is called for another text.
export function progressPanel({ name, text, job, dimension, close }) {
  const facts = [
    text.encoding,
    lines(text.lines),
    text.blank && `${number(text.blank)} blank`,
    text.used < text.lines - text.blank && `only the first ${number(text.used)} used`,
    text.used > text.rows && `${number(text.used - text.rows)} repeated, embedded once`,
    `${bytes(text.rows * dimension * 4)} of memory`,
  ];
  const bar = h("progress", { id: "search-progress", max: job.total });
  const numbers = h("span", { class: "small search-numbers" });
  const progress = h("div", { class: "stack tight" }, h("div", { class: "row between" }, h("label", { for: "search-progress" }, "Embedding"), numbers), bar);
  const errors = h("div", { class: "search-optional" });
  const badge = h("span");
  const skipped = h("details", { class: "small", hidden: true });
  const stop = button("Stop", () => job.stop());
  const resume = button("Continue", () => job.run(), "primary");
  const retry = button("Retry now", () => job.retryNow());
  let state, announced, quarter = 0, skippedCount = 0;

  function showState() {
    const { error } = job;
    state = job.state;
    progress.hidden = state === "done";
    stop.hidden = !job.isActive;
    resume.hidden = state !== "stopped";
    retry.hidden = state !== "waiting";
    const [kind, message] = {
      done: ["ok", `${lines(job.done)} embedded`],
      stopped: ["", `Stopped; ${lines(job.done)} can be searched`],
      login: ["warn", "Waiting for your login"],
      waiting: ["warn", error && cause(error)],
      running: ["", "Running"],
    }[state];
    badge.className = `badge ${kind}`;
    badge.textContent = message;
    replace(errors, state === "stopped" && error && errorBox(error));
    // Not twice in succession: the job of a busy service waits again and again. Not of a text that was closed.
    if (state !== "running" && message !== announced && badge.isConnected) announce((announced = message));
  }

  function show() {
    const { processed, total, rate } = job;
    if (job.state !== state) showState();
    if (state === "waiting") badge.textContent = `${cause(job.error)}, retrying in ${duration(Math.max(1, Math.ceil((job.retryAt - Date.now()) / 1000)))}`;
    bar.value = processed;
    const speed = state === "running" && rate > 0 ? ` · ${number(Math.ceil(rate))} lines/s · ${duration(Math.ceil((total - processed) / rate))} left` : "";
    numbers.textContent = `${Math.floor((100 * processed) / total)} % · ${number(processed)} of ${lines(total)}${speed}`;
    const reached = Math.floor((4 * processed) / total);
    if (reached > quarter && reached < 4) announce(`${25 * reached} % embedded`);
    quarter = reached;
    if (job.skipped.length > skippedCount) showSkipped();
  }

  function showSkipped() {
    skippedCount = job.skipped.length;
    skipped.hidden = false;
    replace(skipped, h("summary", `${lines(skippedCount)} skipped`),
      h("ul", job.skipped.slice(0, MAX_SKIPPED).map(({ line, text, reason }) =>
        h("li", h("strong", `Line ${line}: `), `${reason} `, h("bdi", { class: "muted" }, text.slice(0, 80))))),
      skippedCount > MAX_SKIPPED && h("p", `and ${number(skippedCount - MAX_SKIPPED)} more`));
  }

  let timer;
  job.addEventListener("change", () => {
    if (job.state !== state) show();
    if (!job.isActive) timer = clearInterval(timer);
    else timer ??= setInterval(show, REFRESH_MS);
  });

  return h("div", { class: "card stack" },
    h("div", { class: "row between" },
      h("div", { class: "stack tight" }, h("h3", { class: "search-name", dir: "auto" }, name), h("p", { class: "muted small" }, facts.filter(Boolean).join(" · ")),
        badge),
      h("div", { class: "row" }, retry, stop, resume, button("Load another text", close))),
    progress, errors, skipped);
}
