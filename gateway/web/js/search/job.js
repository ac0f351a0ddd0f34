// The embedding job: sends batches of lines to the service, and stores their vectors in the worker.
import { call } from "../api.js";
import { delay } from "../http.js";
import { session } from "../session.js";

const CONCURRENT_REQUESTS = 3;
// Small batches: a query that waits behind them does not wait long.
const MAX_LINES = 32;
const MAX_BYTES = 64 * 1024;
const MAX_BACKOFF_SECONDS = 30;

// The index in an error message such as `sentences[3]: 9000 tokens; the limit is …`, of a line that the service rejects.
const rejectedIndex = (message) => Number(/^sentences?\[(\d+)\]/.exec(message)?.[1] ?? -1);

// States: "running"; "waiting" (for a retry at `retryAt`, because of `error`); "login" (for a login); "stopped" (by the
// user, or because of `error`; `run` continues); "done". Any change emits "change".
export class EmbeddingJob extends EventTarget {
  state = "stopped";
  error = null;
  retryAt = 0;
  done = 0;
  skipped = [];
  #engine;
  #limits;
  // Batches whose requests failed; a promise while no batch may be sent.
  #returned = [];
  #gate = null;
  #failures = 0;
  #resumed = null;
  #controller = null;

  // `limits` are those in the service's status.
  constructor({ engine, total, limits }) {
    super();
    this.total = total;
    this.#engine = engine;
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

  // Embeds the lines that are left; resolves when the job is done or has stopped.
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

  async #sendBatches(signal) {
    for (;;) {
      while (this.#gate) await this.#gate;
      signal.throwIfAborted();
      const batch = this.#returned.pop() ?? (await this.#take());
      if (!batch.length) return;
      try {
        await this.#embed(batch, signal);
      } catch (error) {
        const rejected = batch[rejectedIndex(error.message)];
        const rest = batch.filter((line) => line !== rejected);
        if (rest.length) this.#returned.push(rest);
        if (rejected) this.#skip({ ...rejected, reason: error.message });
        else if (!signal.aborted && (error.isUnauthenticated || error.isTemporary)) this.#pause(error, signal);
        else throw error;
      }
    }
  }

  async #take() {
    const { batch, skipped } = await this.#engine.call("take", this.#limits);
    this.#skip(...skipped);
    return batch;
  }

  async #embed(batch, signal) {
    const body = { sentence: batch.map(({ text }) => text), format: "npy" };
    const npy = await call("embed", { method: "POST", as: "bytes", body, signal });
    await this.#engine.call("store", { rows: batch.map(({ row }) => row), npy }, [npy]);
    this.#failures = 0;
    this.done += batch.length;
    this.#changed();
  }

  #skip(...lines) {
    this.skipped.push(...lines);
    this.#changed();
  }

  // Sends no batch until the login, or until a retry.
  #pause(error, signal) {
    if (this.#gate) return;
    const seconds = Math.min(MAX_BACKOFF_SECONDS, error.retryAfter ?? 2 ** this.#failures++);
    this.retryAt = Date.now() + seconds * 1000;
    const until = error.isUnauthenticated ? session.restored(signal) : delay(seconds, signal);
    this.#gate = until.catch(() => {}).then(() => {
      this.#gate = null;
      if (!signal.aborted) this.#resume();
    });
    this.#set(error.isUnauthenticated ? "login" : "waiting", error);
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
