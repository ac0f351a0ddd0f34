// Quotas: tokens per day or calendar month (UTC), of a user or an API key.
import { call } from "../api.js";
import { day, h, number } from "../dom.js";
import { field, select } from "./form.js";

const PERIODS = [["", "No quota"], ["day", "Tokens per day (UTC)"], ["month", "Tokens per calendar month (UTC)"]];

export const quotaText = (quota) => (quota ? `${number(quota.tokens)} tokens per ${quota.period}` : "none");

// The fields of a quota: `value()` is as the API takes it.
export function quotaFields(quota, hint) {
  const period = select({ onchange: update }, PERIODS, quota?.period ?? "");
  const tokens = h("input", { type: "number", min: 1, max: 1e15, required: true, value: quota?.tokens ?? 1_000_000 });
  const amount = field("Tokens", tokens);
  function update() {
    amount.hidden = tokens.disabled = period.value === "";
  }
  update();
  return {
    element: h("div", { class: "columns" }, field("Quota", period, hint), amount),
    value: () => (period.value ? { tokens: Number(tokens.value), period: period.value } : null),
  };
}

// How much of a user's quota is used, from the usage of its period.
export async function quotaState({ username, quota }) {
  const today = day(Date.now() / 1000);
  const isDaily = quota.period === "day";
  const from = isDaily ? today : `${today.slice(0, 8)}01`;
  const { usage } = await call("api/usage", { query: { user: username, from, by: "user" } });
  const used = usage[0]?.tokens ?? 0;
  return [
    h("p", `${number(used)} of ${number(quota.tokens)} tokens used ${isDaily ? "today" : "this month"} (UTC)`),
    h("meter", { min: 0, max: quota.tokens, high: quota.tokens * 0.9, optimum: 0, value: used, "aria-label": "Used part of the quota" }),
    used >= quota.tokens && h("p", `Requests to embed are rejected (429) until the next ${quota.period}. An administrator can raise the quota.`),
  ];
}
