// Commands for a POSIX shell.

// A word in single quotes, in which the shell interprets nothing.
export const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// A curl command that embeds a sentence with an API key, for the address of this page.
export function curlCommand(key) {
  return [
    `curl ${quote(new URL("embed", document.baseURI).href)}`,
    `-H ${quote(`Authorization: Bearer ${key}`)}`,
    "-H 'Content-Type: application/json'",
    `-d ${quote(JSON.stringify({ sentence: ["Hello, world"] }))}`,
  ].join(" \\\n  ");
}
