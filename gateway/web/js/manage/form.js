// Forms: labelled fields, a submit button that waits for the result, errors next to the button.
import { dialog, errorBox, h, replace, uniqueId } from "../dom.js";

// A control with its label and, if given, a hint. `element` is what is displayed of it.
export function field(label, control, hint, element = control) {
  control.id = uniqueId("field");
  return h("div", { class: "field" }, h("label", { for: control.id }, label), element, hintOf(control, hint));
}

// A checkbox with its label beside it.
export function checkbox(control, label, hint) {
  return h("div", { class: "field" }, h("label", { class: "check" }, control, label), hintOf(control, hint));
}

function hintOf(control, hint) {
  if (!hint) return null;
  const id = uniqueId("hint");
  control.setAttribute("aria-describedby", id);
  return h("p", { class: "hint", id }, hint);
}

// A select of `[value, label]` pairs.
export const select = (attributes, options, value) =>
  h("select", attributes, options.map(([id, label]) => h("option", { value: id, selected: id === value }, label)));

// An input of text with at most `max` bytes in UTF-8, the unit of the limits of names and passwords.
export function textInput(attributes, { min = 1, max }) {
  const input = h("input", { type: "text", required: true, autocomplete: "off", spellcheck: "false", ...attributes });
  input.addEventListener("input", () => {
    const bytes = new TextEncoder().encode(input.value).length;
    input.setCustomValidity(
      bytes > max ? `This has ${bytes} bytes. At most ${max} are allowed.`
        : bytes > 0 && bytes < min ? `This has ${bytes} bytes. At least ${min} are required.` : "");
  });
  return input;
}

// The field of a new password, which can be made visible.
export function newPassword(label) {
  const input = textInput({ type: "password", autocomplete: "new-password" }, { min: 8, max: 1024 });
  const show = h("button", { type: "button", onclick: () => setVisible(input.type === "password") });
  function setVisible(visible) {
    input.type = visible ? "text" : "password";
    replace(show, visible ? "Hide" : "Show");
    show.setAttribute("aria-label", `${show.textContent} the ${label.toLowerCase()}`);
  }
  setVisible(false);
  const hint = "8 to 1,024 bytes. If other machines can reach the service, it rejects the user's name and the most common passwords.";
  return { input, element: field(label, input, hint, h("div", { class: "password" }, input, show)) };
}

// A form. `submit` returns a promise: the form does not submit again while it is pending, and displays its error.
export function form({ children, action, danger = false, cancel, submit }) {
  const problem = h("div");
  const button = h("button", { type: "submit", class: danger ? "danger" : "primary" }, action);
  let busy = false;
  return h("form", {
    class: "stack",
    onsubmit: async (event) => {
      event.preventDefault();
      if (busy) return;
      busy = true;
      // Not `disabled`: a disabled button loses the focus.
      button.setAttribute("aria-disabled", "true");
      replace(problem);
      try {
        await submit();
      } catch (error) {
        replace(problem, errorBox(error));
      } finally {
        busy = false;
        button.removeAttribute("aria-disabled");
      }
    },
  }, children, problem, h("div", { class: "row end" }, cancel ? h("button", { type: "button", onclick: cancel }, "Cancel") : null, button));
}

// A dialog with one form, which closes it when `submit` succeeds, and then calls what `submit` returned.
export function formDialog({ title, children, action, submit }) {
  const box = dialog(title, form({
    children, action,
    cancel: () => box.close(),
    submit: async () => {
      const finish = await submit();
      box.close();
      finish?.();
    },
  }));
  box.querySelector("input, select").focus();
}
