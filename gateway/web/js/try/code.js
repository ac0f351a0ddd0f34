// A request for given texts as code in several languages.

// Characters that are invisible or reorder the text around them are escaped: the code must be what it looks like.
const HIDDEN = /[\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

// A string of JSON, which is also one of Python and JavaScript.
const quoted = (text) => JSON.stringify(text).replace(HIDDEN, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);

const list = (texts, indent) => `[\n${texts.map((text) => `${indent}    ${quoted(text)},`).join("\n")}\n${indent}]`;
// JSON has no comma after the last element.
const jsonBody = (field, texts) => `{"${field}": [\n${texts.map((text) => `  ${quoted(text)}`).join(",\n")}\n]}`;

// An argument of a POSIX shell.
export const shellWord = (text) => (/^[\w:/.~%@-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

// A here-document with a quoted delimiter: the shell changes nothing in it. A line of JSON is never the delimiter.
const hereDocument = (body) => `<<'JSON'\n${body}\nJSON\n`;

function curl({ base, texts }) {
  return `curl -s ${shellWord(`${base}/embed`)} -H "Authorization: Bearer $MUSE_API_KEY" \\
  -H 'Content-Type: application/json' --data-binary @- ${hereDocument(jsonBody("sentence", texts))}`;
}

function python({ base, texts }) {
  return `# Install the client: see docs/api/python.md
import os

from muse_as_service import MUSEClient

sentences = ${list(texts, "")}

with MUSEClient(url=${quoted(base)}, api_key=os.environ["MUSE_API_KEY"]) as client:
    vectors = client.embed(sentences)

print(vectors.shape)
print(vectors @ vectors.T)  # the cosines: they are unit vectors
`;
}

function grpcurl({ base, texts }) {
  const { protocol, hostname, port, pathname } = new URL(base);
  const plain = protocol === "http:";
  const target = `${hostname}:${port || (plain ? 80 : 443)}`;
  const note = pathname === "/" ? "" : `# gRPC has no path prefix: ${shellWord(target)} must forward gRPC without ${pathname}\n`;
  return `${note}grpcurl ${plain ? "-plaintext " : ""}-H "authorization: Bearer $MUSE_API_KEY" -d @ \\
  ${shellWord(target)} muse.v1.EmbedderService/Embed ${hereDocument(jsonBody("sentences", texts))}`;
}

function openai({ base, model, texts }) {
  return `import os

from openai import OpenAI

sentences = ${list(texts, "")}

client = OpenAI(base_url=${quoted(`${base}/v1`)}, api_key=os.environ["MUSE_API_KEY"])
response = client.embeddings.create(model=${quoted(model)}, input=sentences)
vectors = [item.embedding for item in response.data]

print(len(vectors), len(vectors[0]))
`;
}

// Functions of {base, model, texts}; base is the URL of the service without a slash at its end.
export const FORMS = [["curl", curl], ["Python", python], ["grpcurl", grpcurl], ["OpenAI SDK", openai]];
