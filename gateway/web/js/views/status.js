// Status: the model, the limits, and the load of each embedder during the last ten minutes.
import { call } from "../api.js";
import { announce, bytes, duration, errorBox, h, number, replace, time } from "../dom.js";
import { session } from "../session.js";
import { sparkline } from "../sparkline.js";

const INTERVAL_MS = 5000;
const WINDOW_S = 600;
const PRECISIONS = { f32: "32-bit floating point", bf16: "bfloat16", f16: "16-bit floating point", int8: "8-bit integers" };

const milliseconds = (value) => `${number(value < 10 ? Math.round(value * 10) / 10 : Math.round(value))} ms`;
const rate = (value) => `${number(value < 10 ? Math.round(value * 10) / 10 : Math.round(value))}/s`;
const FIGURES = [
  { title: "Sentences", hint: "Sentences per second", format: rate, value: (sample, interval) => sample.sentences / interval },
  { title: "Queue", hint: "Tokens that wait for a pass of the model", format: (n) => `${number(n)} tokens`, value: (sample) => sample.queued_tokens },
  { title: "Median latency", hint: "Half of the requests took at most this time (p50)", format: milliseconds, value: (sample) => sample.p50_ms },
  { title: "p99 latency", hint: "99 % of the requests took at most this time", format: milliseconds, value: (sample) => sample.p99_ms },
  { title: "Rejections", hint: "Requests rejected because of load, a quota or a limit", format: number, value: (sample) => sample.rejected, bars: true },
];

function health({ embedders_known: known, embedders_serving: serving }) {
  if (serving === 0) {
    const advice = known === 0 ? "Check the gateway's option --embedder." : "Check that their processes run, and read their logs.";
    return { level: "error", mark: "✕", title: "No embedder responds", text: `Requests to embed and tokenize fail with status 503. ${advice}` };
  }
  if (serving < known) {
    const away = known - serving === 1 ? "One embedder does not respond" : `${number(known - serving)} embedders do not respond`;
    const text = `${away}; the gateway sends all requests to the others. Read the log.`;
    return { level: "warn", mark: "!", title: `${number(serving)} of ${number(known)} embedders respond`, text };
  }
  const title = known === 1 ? "The embedder responds" : `All ${number(known)} embedders respond`;
  return { level: "ok", mark: "✓", title, text: "The service accepts requests." };
}

const precision = (name) => (PRECISIONS[name] ? `${PRECISIONS[name]} (${name})` : name);
const device = (name) => (name === "cpu" ? "CPU" : name.startsWith("cuda") ? `GPU (${name})` : name);

function languages(codes) {
  const names = new Intl.DisplayNames("en", { type: "language" });
  return `${number(codes.length)}: ${codes.map((code) => names.of(code)).sort().join(", ")}`;
}

const list = (rows) => h("dl", { class: "facts" }, rows.map(([term, ...value]) => [h("dt", term), h("dd", value)]));

function serviceFacts({ version, model }) {
  return list([
    ["Version", version],
    ["Model", `${model.name}, version ${model.version}`],
    ["Vectors", `${number(model.dimension)} numbers for each sentence`],
    ["Precision", precision(model.precision)],
    ["Device", device(model.device)],
    ["Languages", languages(model.languages)],
    ["License", model.license],
    ["Converted from", `${precision(model.source_precision)}, SHA-256 `, h("code", model.source_sha256)],
  ]);
}

function limitFacts(limits) {
  return list([
    ["A sentence", `at most ${number(limits.max_sentence_tokens)} tokens and ${bytes(limits.max_sentence_bytes)} of text`],
    ["A request", `at most ${number(limits.max_sentences)} sentences, ${number(limits.max_request_tokens)} tokens and ${bytes(limits.max_request_bytes)}`],
    ["Larger inputs", "This page and the Python client split them into several requests."],
  ]);
}

function embedderCard(index) {
  const figures = FIGURES.map((figure) => ({ ...sparkline(figure), value: figure.value }));
  const facts = h("p", { class: "muted" });
  const queue = h("p");
  const id = `embedder-${index}`;
  const element = h(
    "article",
    { class: "card embedder", "aria-labelledby": id },
    h("h3", { id }, `Embedder ${index + 1}`),
    facts,
    queue,
    h("div", { class: "spark-grid" }, figures.map((figure) => figure.element)),
  );

  function update(embedder) {
    const { samples, interval } = embedder;
    // The clock of the server, because that of the browser may differ.
    const to = samples.length > 0 ? samples.at(-1).start + interval : Date.now() / 1000;
    const uptime = duration(Math.max(0, to - embedder.started_at));
    replace(facts, `Version ${embedder.version}, ${precision(embedder.precision)}, ${device(embedder.device)}, running for ${uptime}`);
    const waiting = `${number(embedder.queued_requests)} ${embedder.queued_requests === 1 ? "request" : "requests"}`;
    replace(queue, embedder.queued_requests === 0 ? "No request waits in the queue." : `${waiting} with ${number(embedder.queued_tokens)} tokens in the queue.`);
    for (const figure of figures) {
      const points = samples.map((sample) => ({ at: sample.start + interval / 2, value: figure.value(sample, interval) }));
      figure.update(points, to - WINDOW_S, to);
    }
  }
  return { element, update };
}

// Replaces the content only if the data has changed, so that selected text stays selected.
function section(title, render) {
  const content = h("div");
  let shown;
  return {
    element: h("article", { class: "card" }, h("h3", title), content),
    update(data) {
      const key = JSON.stringify(data);
      if (key !== shown) replace(content, render(data));
      shown = key;
    },
  };
}

// Set by `create`, which app.js calls once, before `shown`.
let polling;

function create() {
  const state = h("div", { hidden: true });
  const problem = h("div", { class: "problem" });
  const updated = h("p", { class: "muted" }, "Loading…");
  const service = section("Service", serviceFacts);
  const limits = section("Limits", limitFacts);
  const details = h("div", { class: "grid status-cards", hidden: true }, service.element, limits.element);
  const embedders = h("div", { class: "stack" });
  const cards = [];
  let title;

  function show(status) {
    const now = health(status);
    state.className = `notice health ${now.level}`;
    state.hidden = details.hidden = false;
    replace(state, h("span", { class: "mark", "aria-hidden": "true" }, now.mark), h("div", h("h3", now.title), h("p", now.text)));
    if (title !== undefined && title !== now.title) announce(now.title);
    title = now.title;
    service.update({ version: status.version, model: status.model });
    limits.update(status.limits);
    while (cards.length < status.embedders.length) cards.push(embedderCard(cards.length));
    cards.length = status.embedders.length;
    status.embedders.forEach((embedder, index) => cards[index].update(embedder));
    if (embedders.children.length !== cards.length) replace(embedders, cards.map((card) => card.element));
    replace(problem);
    replace(updated, "Updated every 5 seconds while this view is open; last at ", time(Date.now() / 1000), ".");
  }

  // The last figures stay; the embedders report the missed ones with the next response.
  function fail(error) {
    if (problem.firstChild?.dataset.message === error.message) return;
    const box = errorBox(error);
    box.dataset.message = error.message;
    replace(problem, box, h("p", "The figures below, if any, are older. The page tries again every 5 seconds."));
  }

  polling = poller(show, fail);
  return h(
    "section",
    { "aria-labelledby": "status-title", class: "status" },
    h("h2", { id: "status-title" }, "Status"),
    problem,
    state,
    updated,
    embedders,
    details,
  );
}

/** Polls while the view is shown and the tab is visible. */
function poller(show, fail) {
  let wanted = false;
  let abort = null;
  let timer;

  async function poll() {
    const { signal } = (abort = new AbortController());
    try {
      show(await call("api/status", { signal }));
    } catch (error) {
      if (signal.aborted) return;
      fail(error);
      if (error.status === 401) {
        try {
          await session.restored(signal);
        } catch {
          return;
        }
      }
    }
    if (!signal.aborted) timer = setTimeout(poll, INTERVAL_MS);
  }

  function apply() {
    const active = wanted && document.visibilityState === "visible";
    if (active && abort === null) poll();
    if (!active && abort !== null) {
      abort.abort();
      abort = null;
      clearTimeout(timer);
    }
  }
  document.addEventListener("visibilitychange", apply);
  return {
    want(value) {
      wanted = value;
      apply();
    },
  };
}

export default {
  id: "status",
  title: "Status",
  admin: false,
  create,
  shown: () => polling.want(true),
  hidden: () => polling.want(false),
};
