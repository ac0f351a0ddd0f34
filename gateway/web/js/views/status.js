// Status: the model, the limits, and the load of each embedder during the last ten minutes.
import { call } from "../api.js";
import { announce, bytes, duration, errorBox, h, number, replace } from "../dom.js";
import { delay } from "../http.js";
import { session } from "../session.js";
import { sparkline } from "../sparkline.js";

const INTERVAL_SECONDS = 5;
const WINDOW_SECONDS = 600;

const rounded = (value) => number(Number(value.toFixed(value < 10 ? 1 : 0)));
const perSecond = (value) => `${rounded(value)}/s`;
const milliseconds = (value) => (value < 10_000 ? `${rounded(value)} ms` : duration(value / 1000));
const FIGURES = [
  { title: "Sentences", format: perSecond, value: ({ sentences }, interval) => sentences / interval },
  { title: "Queue", format: (value) => `${number(value)} tokens`, value: (sample) => sample.queued_tokens },
  { title: "Median latency", format: milliseconds, value: (sample) => sample.p50_ms },
  { title: "p99 latency", format: milliseconds, value: (sample) => sample.p99_ms },
  { title: "Rejections", format: perSecond, value: ({ rejected }, interval) => rejected / interval },
];

// A class of .notice, a mark, a title and an explanation.
function health({ embedders_known: known, embedders_serving: serving, model, problem }) {
  if (!model) {
    const advice = known === 0 ? "Check the gateway's option --embedder." : "Check that the embedders run, and read their logs.";
    return ["error", "✕", "No embedder responds", `Requests to embed and tokenize fail with status 503: ${problem}. ${advice}`];
  }
  if (serving < known) {
    return ["warn", "!", `${number(serving)} of ${number(known)} embedders respond`, "The gateway sends all requests to those that respond. Read the logs of the others."];
  }
  return ["ok", "✓", known === 1 ? "The embedder responds" : `All ${number(known)} embedders respond`, "The service accepts requests."];
}

function languages(codes) {
  const names = new Intl.DisplayNames("en", { type: "language" });
  return `${codes.length}: ${codes.map((code) => names.of(code)).sort().join(", ")}`;
}

const card = (title, rows) =>
  h("article", { class: "card" }, h("h3", title), h("dl", { class: "facts" }, rows.map(([term, ...value]) => [h("dt", term), h("dd", value)])));

const facts = ({ version, model, limits }) => [
  card("Service", [
    ["Version", version],
    ["Model", `${model.name}, version ${model.version}`],
    ["Vectors", `${number(model.dimension)} numbers for each sentence`],
    ["Precision", model.precision],
    ["Device", model.device],
    ["Kernel", model.kernel],
    ["Languages", languages(model.languages)],
    ["Fingerprint", h("code", model.fingerprint)],
    ["License", model.license],
    ["Source weights", `${model.source_precision}, SHA-256 `, h("code", model.source_sha256)],
  ]),
  card("Limits", [
    ["A sentence", `at most ${number(limits.max_sentence_tokens)} tokens and ${bytes(limits.max_sentence_bytes)} of text`],
    ["A request", `at most ${number(limits.max_sentences)} sentences, ${number(limits.max_request_tokens)} tokens and ${bytes(limits.max_request_bytes)}`],
  ]),
];

function embedderCard(index) {
  const lines = FIGURES.map(sparkline);
  const description = h("p", { class: "muted" });
  const id = `embedder-${index}`;
  const grid = h("div", { class: "spark-grid" }, lines.map((line) => line.element));
  const element = h("article", { class: "card", "aria-labelledby": id }, h("h3", { id }, `Embedder ${index + 1}`), description, grid);

  function update({ version, precision, device, started_at, interval, samples }) {
    // The clock of the server, because that of the browser may differ.
    const to = samples.length > 0 ? samples.at(-1).start + interval : Date.now() / 1000;
    replace(description, `Version ${version}, ${precision}, ${device}, running for ${duration(Math.max(0, to - started_at))}`);
    FIGURES.forEach(({ value }, at) => {
      const points = samples.map((sample) => ({ at: sample.start + interval / 2, value: value(sample, interval) }));
      lines[at].update(points, to - WINDOW_SECONDS, to);
    });
  }
  return { element, update };
}

// Set by `create`, which app.js calls once, before `shown`.
let poll;
let polling;

function create() {
  const problem = h("div");
  const state = h("div", { hidden: true });
  const embedders = h("div", { class: "stack" });
  const details = h("div", { class: "grid status-cards" });
  const cards = [];

  function show(status) {
    const [level, mark, title, text] = health(status);
    const isChange = !state.hidden && state.querySelector("h3").textContent !== title;
    state.className = `notice health ${level}`;
    state.hidden = false;
    replace(state, h("span", { "aria-hidden": "true" }, mark), h("div", h("h3", title), h("p", text)));
    if (isChange) announce(title);
    while (cards.length < status.embedders.length) cards.push(embedderCard(cards.length));
    cards.length = status.embedders.length;
    if (embedders.children.length !== cards.length) replace(embedders, cards.map(({ element }) => element));
    status.embedders.forEach((embedder, index) => cards[index].update(embedder));
    // Not at each poll, so that selected text stays selected.
    if (!details.firstChild && status.model) replace(details, facts(status));
    replace(problem);
  }

  // The last figures stay; the next response has the missed ones. Whether the service accepts requests is not known.
  function fail(error) {
    state.hidden = true;
    if (!problem.firstChild) replace(problem, errorBox(error));
  }

  poll = async (signal) => {
    while (!signal.aborted) {
      try {
        // Nobody sees the figures in a hidden tab.
        if (!document.hidden) show(await call("api/status", { signal }));
      } catch (error) {
        if (!signal.aborted) fail(error);
      }
      await Promise.all([delay(INTERVAL_SECONDS, signal), session.restored(signal)]).catch(() => {});
    }
  };
  return h("section", { "aria-labelledby": "status-title" },
    h("h2", { id: "status-title" }, "Status"), problem, state,
    h("p", { class: "muted" }, "Load of the last 10 minutes, updated every 5 seconds."), embedders, details);
}

function shown() {
  polling = new AbortController();
  poll(polling.signal);
}

export default { id: "status", title: "Status", admin: false, create, shown, hidden: () => polling.abort() };
