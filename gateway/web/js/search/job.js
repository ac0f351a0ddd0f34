// The embedding job: sends batches of lines to the service, and stores their vectors in the worker.
import { delay } from "../http.js";

const CONCURRENT_REQUESTS = 3;
// Small batches: a query that waits behind them does not wait long.
const MAX_LINES = 32;
const MAX_BYTES = 64 * 1024;
const MAX_BACKOFF_SECONDS = 30;
// The job stops when the service rejects this many lines and embeds none in between.
const MAX_REJECTED = 50;

// What a failed request means: the state "login" or "waiting", "line" (perhaps the service rejects a line), "stop".
function classify({ isUnauthenticated, reason, status }) {
  if (isUnauthenticated) return "login";
  if (reason === "QUOTA_EXHAUSTED") return "stop";
  if ([0, 408, 429, 502, 503, 504].includes(status)) return "waiting";
  return [400, 413, 500].includes(status) ? "line" : "stop";
}

// The index in an error message such as `sentences[3]: 9000 tokens; the limit is …`, or -1.
const rejectedIndex = (message) => Number(/^sentences?\[(\d+)\]/.exec(message)?.[1] ?? -1);

// States: "running"; "waiting" (for a retry at `retryAt`, because of `error`); "login" (for a login); "stopped" (by the
// user, or because of `error`; `run` continues); "done". Any change emits "change".
export class EmbeddingJob extends EventTarget {
  state = "stopped";
  error = null;
  retryAt = 0;
  done = 0;
  skipped = [];
  #options;
  #limits;
  // Batches whose requests failed; a promise while no batch may be sent.
  #returned = [];
  #gate = null;
  #wake = null;
  #failures = 0;
  #rejected = 0;
  #resumed = null;
  #controller = null;

  // `send(texts, signal)` returns an .npy file; `restored(signal)` waits for a login; `limits` are in the service's status.
  constructor({ engine, total, send, restored, limits }) {
    super();
    this.total = total;
    this.#options = { engine, send, restored };
    this.#limits = {
      maxLines: MAX_LINES,
      // A token has at least a byte of text, and a sentence two tokens more.
      maxBytes: Math.min(MAX_BYTES, limits.max_request_bytes / 2, limits.max_request_tokens / 2),
      maxLineBytes: limits.max_sentence_bytes,
    };
  }

  get isActive() {
    return this.state !== "stopped" && this.state !== "done";
  }

  get processed() {
    return this.done + this.skipped.length;
  }

  // Lines per second since the job was started, or continued.
  get rate() {
    return (1000 * (this.done - this.#resumed.done)) / (performance.now() - this.#resumed.time);
  }

  // Embeds the rows that are left; resolves when the job is done or has stopped.
  async run() {
    const { signal } = (this.#controller = new AbortController());
    this.#resume();
    const sendBatches = () => this.#sendBatches(signal).catch((error) => this.#controller.abort(error));
    await Promise.all(Array.from({ length: CONCURRENT_REQUESTS }, sendBatches));
    this.#set(signal.aborted ? "stopped" : "done", signal.reason?.name === "AbortError" ? null : signal.reason);
  }

  // Aborts the requests; a continued job sends their lines again.
  stop() {
    this.#controller.abort();
  }

  retryNow() {
    this.#wake?.abort();
  }

  async #sendBatches(signal) {
    for (;;) {
      while (this.#gate) await this.#gate;
      signal.throwIfAborted();
      const batch = this.#returned.pop() ?? (await this.#take());
      if (!batch) return;
      try {
        await this.#embed(batch, signal);
      } catch (error) {
        const meaning = signal.aborted ? "stop" : classify(error);
        if (meaning === "line") await this.#reject(batch, error);
        else this.#returned.push(batch);
        if (meaning === "stop") throw error;
        if (meaning === "login" || meaning === "waiting") this.#pause(meaning, error, signal);
      }
    }
  }

  async #take() {
    const { batch, skipped } = await this.#options.engine.call("take", this.#limits);
    if (skipped.length) this.#skip(...skipped);
    return batch;
  }

  async #embed({ rows, texts }, signal) {
    const npy = await this.#options.send(texts, signal);
    await this.#options.engine.call("store", { rows, npy }, [npy]);
    this.#failures = this.#rejected = 0;
    this.done += rows.length;
    this.#changed();
  }

  // Skips the line that the service rejects; if the error does not name it, halves the batch.
  async #reject({ rows, texts }, error) {
    const index = rows.length === 1 ? 0 : rejectedIndex(error.message);
    const isKnown = index >= 0 && index < rows.length;
    const half = rows.length >> 1;
    for (const [from, to] of isKnown ? [[0, index], [index + 1]] : [[0, half], [half]]) {
      const part = { rows: rows.slice(from, to), texts: texts.slice(from, to) };
      if (part.rows.length) this.#returned.push(part);
    }
    if (!isKnown) return;
    const reason = error.message.replace(/^\S+: |; split the text$/g, "");
    this.#skip({ ...(await this.#options.engine.call("describe", rows[index])), reason });
    if (++this.#rejected >= MAX_REJECTED) throw error;
  }

  #skip(...lines) {
    this.skipped.push(...lines);
    this.#changed();
  }

  // Sends no batch until the login, or until a retry.
  #pause(state, error, signal) {
    if (this.#gate) return;
    let until;
    if (state === "login") until = this.#options.restored(signal);
    else {
      const seconds = error.retryAfter ?? Math.min(MAX_BACKOFF_SECONDS, 2 ** this.#failures++);
      this.retryAt = Date.now() + seconds * 1000;
      this.#wake = new AbortController();
      until = delay(seconds, AbortSignal.any([signal, this.#wake.signal]));
    }
    this.#gate = until.catch(() => {}).then(() => {
      this.#gate = null;
      if (!signal.aborted) this.#resume();
    });
    this.#set(state, error);
  }

  #resume() {
    this.#resumed = { time: performance.now(), done: this.done };
    this.#set("running", null);
  }

  #set(state, error) {
    this.state = state;
    this.error = error;
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}
