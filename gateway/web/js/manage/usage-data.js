// Usage from the service: sums by day, and CSV of everything.
import { call } from "../api.js";
import { day } from "../dom.js";
import { csvLine } from "./csv.js";

// The counts of a row, by their names in the API.
export const METRICS = { sentences: "Sentences", tokens: "Tokens", requests: "Requests", refused: "Rejected" };

const PAGE = 1000;
export const MAX_NAMES = 5000;
const DAY = 86_400;

export const total = (rows, metric) => rows.reduce((sum, row) => sum + row[metric], 0);

// Today (UTC), or some days earlier.
export const daysAgo = (days) => day(Date.now() / 1000 - days * DAY);

async function* pages(path, query, signal) {
  let after;
  do {
    const page = await call(path, { query: { ...query, limit: PAGE, after }, signal });
    yield page;
    after = page.next;
  } while (after !== null);
}

// The usage of each day of a period, also of those without requests.
export async function usageByDay(query, signal) {
  const days = new Map();
  for (let time = Date.parse(query.from) / 1000; day(time) <= query.to; time += DAY) {
    days.set(day(time), { day: day(time), sentences: 0, tokens: 0, requests: 0, refused: 0 });
  }
  for await (const { usage } of pages("api/usage", { ...query, by: "day" }, signal)) for (const row of usage) days.set(row.day, row);
  return [...days.values()];
}

// The names of API keys by id, of a user or of all.
export async function keyNames(user, signal) {
  const names = new Map();
  try {
    for await (const { keys } of pages("api/keys", { user, all: !user }, signal)) {
      for (const { id, name } of keys) names.set(id, name);
      if (names.size >= MAX_NAMES) break;
    }
  } catch (error) {
    // There is usage of users who were removed, and they have no keys.
    if (error.reason !== "NO_SUCH_USER") throw error;
  }
  return names;
}

// A CSV file of the usage by day, user and key.
export async function usageCsv(query, names) {
  // Spreadsheets read UTF-8 if the file begins with a byte order mark.
  const parts = ["\ufeff", csvLine(["day", "user", "key_id", "key_name", "requests", "sentences", "tokens", "rejected"])];
  for await (const { usage } of pages("api/usage", query)) {
    for (const row of usage) {
      parts.push(csvLine([row.day, row.user, row.key_id, names.get(row.key_id), row.requests, row.sentences, row.tokens, row.refused]));
    }
  }
  return parts;
}
