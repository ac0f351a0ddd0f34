// Quotas: tokens per day or calendar month (UTC), of a user or an API key.
import { call } from "../api.js";
import { day, h, number } from "../dom.js";
import { field, select } from "./form.js";
import { today } from "./days.js";

const PERIODS = [["", "No quota"], ["day", "Tokens per day (UTC)"], ["month", "Tokens per calendar month (UTC)"]];

export const quotaText = (quota) => (quota ? `${number(quota.tokens)} tokens per ${quota.period}` : "none");

// The fields of a quota: `value()` is as the API takes it.
export function quotaFields(quota, hint) {
  const period = select({}, PERIODS, quota?.period ?? "");
  const tokens = h("input", { type: "number", min: 1, max: 1e15, step: 1, inputmode: "numeric", value: quota?.tokens ?? 1_000_000 });
  const amount = field("Tokens", tokens);
  const update = () => {
    amount.hidden = period.value === "";
    tokens.disabled = amount.hidden;
    tokens.required = !amount.hidden;
  };
  period.addEventListener("change", update);
  update();
  return {
    element: h("div", { class: "quota" }, field("Quota", period, hint), amount),
    value: () => (period.value ? { tokens: Number(tokens.value), period: period.value } : null),
  };
}

// How much of a user's quota is used, from the usage of its period.
export async function quotaState({ username, quota }) {
  const now = today();
  const from = quota.period === "day" ? now : `${now.slice(0, 8)}01`;
  const { usage } = await call("api/usage", { query: { user: username, from, to: now, by: "user" } });
  const used = usage[0]?.tokens ?? 0;
  const [year, month, date] = now.split("-").map(Number);
  const reset = quota.period === "day" ? Date.UTC(year, month - 1, date + 1) : Date.UTC(year, month, 1);
  return h("div", { class: "stack tight" },
    h("p", h("strong", `${number(used)} of ${number(quota.tokens)} tokens`), ` used ${quota.period === "day" ? "today" : "this month"} (UTC)`),
    h("meter", { min: 0, max: quota.tokens, high: quota.tokens * 0.9, optimum: 0, value: Math.min(used, quota.tokens), "aria-label": "Used part of the quota" }),
    h("p", { class: "muted" },
      used >= quota.tokens ? "The quota is exhausted: calls to embed are rejected (429) until it resets. " : "",
      `It resets on ${day(reset / 1000)} at 00:00 UTC. An admin can change it.`));
}
