// The page's side of worker.js: a promise for each request.
import { TextError } from "./text.js";

const url = new URL("worker.js", import.meta.url).href;
const policy = globalThis.trustedTypes?.createPolicy("worker", { createScriptURL: () => url });

export class Engine {
  #worker = new Worker(policy?.createScriptURL("") ?? url, { type: "module" });
  #pending = new Map();
  #id = 0;

  constructor() {
    this.#worker.onmessage = ({ data: { id, result, error, advice } }) => {
      const { resolve, reject } = this.#pending.get(id);
      this.#pending.delete(id);
      if (error === undefined) resolve(result);
      else reject(new TextError(error, advice));
    };
    // Also if its file is missing: a new version of the service has other files.
    this.#worker.onerror = () => this.close("Reload the page, and load the text again.");
  }

  // Calls a method of the worker; the buffers in `transfer` move to it without a copy.
  call(method, argument, transfer = []) {
    return new Promise((resolve, reject) => {
      this.#pending.set(++this.#id, { resolve, reject });
      this.#worker.postMessage({ id: this.#id, method, argument }, transfer);
    });
  }

  // Ends the worker, which frees its memory; requests to it fail.
  close(advice = "Load the text again.") {
    const error = new TextError("The search was stopped", advice);
    this.#worker.terminate();
    for (const { reject } of this.#pending.values()) reject(error);
    this.call = () => Promise.reject(error);
  }
}
