// Try it: tokens, similarities and vectors of up to 100 lines.
import { embed, served, tokenize } from "../api.js";
import { announce, h, replace } from "../dom.js";
import { tabs } from "../tabs.js";
import { similarities } from "../vectors.js";
import { exportPanel } from "../try/export.js";
import { heatmap } from "../try/heatmap.js";
import { inputForm } from "../try/input.js";
import { neighbours } from "../try/neighbours.js";
import { tokenList } from "../try/tokens.js";

// The URL of the service without a slash at its end; the page may have a path prefix.
const baseUrl = () => new URL(".", document.baseURI).href.replace(/\/$/, "");

function similarityPanel(result) {
  if (result.rows < 2) return h("p", { class: "empty" }, "Enter a second line to compare them.");
  return h("div", { class: "stack" }, heatmap(result), h("h3", "Nearest neighbours"), neighbours(result));
}

function create() {
  const results = h("div", { class: "stack", id: "try-results" },
    h("p", { class: "empty" }, "Load one sentence in 16 languages to see how the model compares them, or enter your own texts. Two more lines have another meaning, for contrast. The results appear here; nothing is stored."));

  async function compute(texts, signal) {
    const [{ rows, dimension, vectors }, tokens, { model }] = await Promise.all([
      embed(texts, { signal }), tokenize(texts, { signal }), served({ signal })]);
    return { texts, tokens, rows, dimension, vectors, model, matrix: similarities(vectors, rows, dimension) };
  }

  function show(result) {
    const isBelow = results.getBoundingClientRect().top > innerHeight / 2;
    replace(results, tabs("Results", [
      { title: "Similarity", panel: similarityPanel(result) },
      { title: "Tokens", panel: tokenList(result) },
      { title: "Vectors and code", panel: exportPanel(result, { base: baseUrl(), model: result.model.name, texts: result.texts }) },
    ]));
    // After the next frame the layout is known.
    if (isBelow) requestAnimationFrame(() => setTimeout(() => results.scrollIntoView()));
    announce(`The results for ${result.rows} ${result.rows === 1 ? "line" : "lines"} are below.`);
  }

  return h("section", { "aria-labelledby": "try-title" },
    h("div", { class: "stack tight" },
      h("h2", { id: "try-title" }, "Try it"),
      h("p", { class: "muted prose" }, "See which texts are similar in meaning, in and between 16 languages, and how the model splits them into tokens.")),
    inputForm(compute, show), results);
}

export default { id: "try", title: "Try it", admin: false, create };
