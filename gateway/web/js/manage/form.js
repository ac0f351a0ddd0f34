// Forms: labelled fields, a submit button that waits for the result, errors next to the button.
import { dialog, errorBox, h, replace, uniqueId } from "../dom.js";

// A control with its label and, if given, a hint.
export function field(label, control, hint) {
  control.id = uniqueId("field");
  const hintId = uniqueId("hint");
  if (hint) control.setAttribute("aria-describedby", hintId);
  return h("div", { class: "field" },
    control.type === "checkbox" ? h("label", { class: "check" }, control, label) : [h("label", { for: control.id }, label), control],
    hint && h("p", { class: "hint", id: hintId }, hint));
}

export const checkbox = (attributes) => h("input", { type: "checkbox", ...attributes });

export const textInput = (attributes) => h("input", { required: true, autocomplete: "off", spellcheck: "false", ...attributes });

// A select of `[value, label]` pairs.
export const select = (attributes, options, value) =>
  h("select", attributes, options.map(([id, label]) => h("option", { value: id, selected: id === value }, label)));

// The fields of a new password, which can be made visible.
export function newPassword(label) {
  const input = textInput({ type: "password", autocomplete: "new-password" });
  const show = checkbox({ onchange: () => (input.type = show.checked ? "text" : "password") });
  const hint = "At least 8 characters, at most 1,024 bytes. The service may reject the user name and common passwords.";
  return { input, fields: [field(label, input, hint), field("Show the password", show)] };
}

// Runs an action if the button is not busy with an earlier one; `problem` displays its error.
export async function runOnce(button, problem, action) {
  if (button.ariaDisabled) return;
  // Not `disabled`: a disabled button loses the focus.
  button.ariaDisabled = "true";
  replace(problem);
  try {
    await action();
  } catch (error) {
    replace(problem, errorBox(error));
  } finally {
    button.ariaDisabled = null;
  }
}

// A form; `submit` returns a promise.
export function form({ children, action, kind = "primary", cancel, submit }) {
  const problem = h("div");
  const button = h("button", { class: kind }, action);
  const onsubmit = (event) => {
    event.preventDefault();
    runOnce(button, problem, submit);
  };
  return h("form", { class: "stack", onsubmit }, children, problem,
    h("div", { class: "row end" }, cancel && h("button", { type: "button", onclick: cancel }, "Cancel"), button));
}

// A dialog with one form. It closes when `submit` succeeds, and passes the result to `done`.
export function formDialog({ title, children, action, submit, done }) {
  const box = dialog(title, form({
    children, action,
    cancel: () => box.close(),
    submit: async () => {
      const result = await submit();
      box.close();
      done(result);
    },
  }));
  box.querySelector("input").focus();
}
