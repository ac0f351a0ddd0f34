// CSV (RFC 4180) for spreadsheets.

// A cell. Spreadsheets run text that begins like a formula, and names come from other users: an
// apostrophe makes it text (OWASP, "CSV injection").
function cell(value) {
  let text = String(value ?? "");
  if (/^\s*[=+\-@\t\r＝＋－＠]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export const csvLine = (values) => `${values.map(cell).join(",")}\r\n`;
