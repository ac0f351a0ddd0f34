// Numbers, sizes and times as text.
const integers = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });

export const number = (value) => integers.format(value);

export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  let scaled = value;
  // Three digits: 1,000 KiB is 0.98 MiB.
  for (; scaled >= 999.5 && power < units.length - 1; power++) scaled /= 1024;
  return `${number(Number(scaled.toPrecision(3)))} ${units[power]}`;
}

// "4 ms", "12 s", "3 min 20 s", "5 h 2 min", "12 d 4 h".
export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  const whole = Math.round(seconds);
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = parts.findIndex(([, size]) => whole >= size);
  let rest = whole;
  const texts = [];
  for (const [unit, size] of parts.slice(first, first + 2)) {
    const count = Math.floor(rest / size);
    rest -= count * size;
    if (count) texts.push(`${count} ${unit}`);
  }
  return texts.join(" ");
}

// The UTC day of a time in seconds since 1970: "2026-11-29".
export const day = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 10);

// The same time in UTC: "2026-11-29 14:20:23 UTC".
export const utcTime = (seconds) => `${new Date(seconds * 1000).toISOString().replace("T", " ").slice(0, 19)} UTC`;
