// Days of usage as the service writes them: "2026-11-29", in UTC.

const MILLISECONDS = 86_400_000;

export const today = () => new Date().toISOString().slice(0, 10);

export const addDays = (day, count) => new Date(Date.parse(day) + count * MILLISECONDS).toISOString().slice(0, 10);

// All days from the first to the last one, both included.
export function daysBetween(from, to) {
  const count = Math.round((Date.parse(to) - Date.parse(from)) / MILLISECONDS) + 1;
  return Array.from({ length: count }, (_, at) => addDays(from, at));
}
