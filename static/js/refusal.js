// A form sent by htmx that the hub refuses: everything typed stays but the secrets, the fields that the answer names are
// marked with its words, and the first of them has the focus.
const SECRETS = "input[type=password], input[autocomplete=one-time-code]";
const NAMED = "input:not([type=hidden]), select, textarea";

// A fault of a document is named by a JSON pointer; its field in a form, where there is one, by a dotted path.
function fieldOf(form, name) {
  const path = name.replace(/^\//, "").replaceAll("/", ".");
  return [...form.querySelectorAll(NAMED)].find((field) => field.name === name || field.dataset.path === path);
}

function clear(form) {
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    const former = field.dataset.describedBefore;
    if (former) field.setAttribute("aria-describedby", former);
    else field.removeAttribute("aria-describedby");
  }
  form.querySelectorAll(".field-fault").forEach((note) => note.remove());
}

function mark(field, words) {
  if (field.hasAttribute("aria-invalid")) return;
  const note = document.createElement("div");
  note.className = "field-fault";
  note.id = `${field.id || field.name}-fault`;
  note.textContent = words;
  field.dataset.describedBefore = field.getAttribute("aria-describedby") ?? "";
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", `${field.dataset.describedBefore} ${note.id}`.trim());
  field.after(note);
}

document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.elt instanceof HTMLFormElement) clear(event.detail.elt);
});

document.addEventListener("htmx:afterSwap", (event) => {
  const form = event.detail.requestConfig?.elt;
  if (!(form instanceof HTMLFormElement) || event.detail.xhr.status < 400) return;
  for (const secret of form.querySelectorAll(SECRETS)) secret.value = "";
  for (const item of event.detail.target.querySelectorAll(".problem [data-field]")) {
    const field = fieldOf(form, item.dataset.field);
    if (!field) continue;
    mark(field, item.dataset.message);
    item.remove();
  }
  const first = form.querySelector("[aria-invalid]");
  if (first) first.focus();
  else event.detail.target.scrollIntoView({ block: "nearest" });
});
