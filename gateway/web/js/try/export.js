// Vectors as files and in the clipboard, and the request as code.
import { bytes, copyButton, download, h, number } from "../dom.js";
import { writeNpy } from "../npy.js";
import { tabs } from "../tabs.js";
import { FORMS } from "./code.js";
import { toCsv, toJson } from "./vectors-file.js";

function vectorsCard(result) {
  const { rows, dimension, vectors } = result;
  const button = (label, onclick) => h("button", { onclick }, label);
  return h("div", { class: "card stack" },
    h("h3", "Vectors"),
    h("p", `${number(rows)} × ${number(dimension)} numbers (float32, ${bytes(vectors.byteLength)}), each line a vector of length 1.`),
    h("div", { class: "row" },
      copyButton("Copy as JSON", () => toJson(result)),
      button("Download .npy", () => download("vectors.npy", "application/octet-stream", [writeNpy(vectors, rows, dimension)])),
      button("Download CSV", async () => download("vectors.csv", "text/csv;charset=utf-8", await toCsv(result)))));
}

function codeCard(request) {
  const panels = FORMS.map(([title, form]) => {
    const code = form(request);
    return {
      title,
      panel: h("div", { class: "stack tight" },
        h("pre", { class: "code", tabindex: 0, role: "region", "aria-label": `Code for ${title}` }, h("code", code)),
        h("div", { class: "row" }, copyButton("Copy code", () => code))),
    };
  });
  return h("div", { class: "card stack" },
    h("h3", "The same request as code"),
    h("p", { class: "muted" }, "Set the environment variable MUSE_API_KEY to an API key, which you create in ", h("a", { href: "#keys" }, "Keys"), "."),
    tabs("Language of the code", panels));
}

export const exportPanel = (result, request) => h("div", { class: "stack" }, vectorsCard(result), codeCard(request));
