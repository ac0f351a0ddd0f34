// Usage from the service: sums by day, and CSV of everything.
import { call } from "../api.js";
import { daysBetween } from "./days.js";
import { csvLine } from "./csv.js";
import { pages } from "./table.js";

// The counts of a row, by the name that the API gives them.
export const METRICS = { sentences: "Sentences", tokens: "Tokens", requests: "Requests", refused: "Rejected" };
export const unitOf = (metric) => (metric === "refused" ? "rejected requests" : metric);

// More bars than this are too narrow, and are drawn by week.
const MAX_BARS = 120;

const LARGEST_PAGE = 1000;

// All rows of a query, in parts.
export async function* usageRows(query, signal) {
  const load = (after) => call("api/usage", { query: { ...query, limit: LARGEST_PAGE, after }, signal });
  for await (const { usage } of pages(load)) yield usage;
}

// The usage of each day of a period, also of those without calls.
export async function usageByDay(query, signal) {
  const found = new Map();
  for await (const rows of usageRows({ ...query, by: "day" }, signal)) for (const row of rows) found.set(row.day, row);
  const none = Object.fromEntries(Object.keys(METRICS).map((metric) => [metric, 0]));
  return daysBetween(query.from, query.to).map((day) => found.get(day) ?? { day, ...none });
}

// The bars of a metric.
export function bars(days, metric) {
  if (days.length <= MAX_BARS) return { unit: "day", bars: days.map((row) => ({ label: row.day, value: row[metric] })) };
  const weeks = [];
  for (let at = 0; at < days.length; at += 7) {
    const week = days.slice(at, at + 7);
    weeks.push({ label: `${week[0].day} to ${week.at(-1).day}`, value: total(week, metric) });
  }
  return { unit: "week", bars: weeks };
}

export const total = (rows, metric) => rows.reduce((sum, row) => sum + row[metric], 0);

// The names of API keys by id, of at most 5,000 keys.
export async function keyNames(query, signal) {
  const names = new Map();
  const load = (after) => call("api/keys", { query: { ...query, limit: LARGEST_PAGE, after }, signal });
  try {
    for await (const { keys } of pages(load)) {
      for (const { id, name } of keys) names.set(id, name);
      if (names.size >= 5 * LARGEST_PAGE) break;
    }
  } catch (error) {
    // There is usage of users who were removed, and they have no keys.
    if (error.reason !== "NO_SUCH_USER") throw error;
  }
  return names;
}

// A CSV file of the usage by day, user and key. `progress` gets the number of rows so far.
export async function usageCsv(query, names, progress) {
  // Spreadsheets read UTF-8 if the file begins with a byte order mark.
  const parts = ["\ufeff", csvLine(["day", "user", "key_id", "key_name", "requests", "sentences", "tokens", "rejected"])];
  for await (const rows of usageRows(query)) {
    for (const row of rows) {
      parts.push(csvLine([row.day, row.user, row.key_id, names.get(row.key_id), row.requests, row.sentences, row.tokens, row.refused]));
    }
    progress(parts.length - 2);
  }
  return parts;
}
