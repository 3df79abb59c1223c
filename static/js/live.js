// What pages do beside htmx: print on a click, and say when a submission shown live has reached its end.
const shown = () => document.querySelector("#submission-progress");
let isFinal = shown()?.dataset.final === "yes";

function announceEnd() {
  const before = isFinal;
  isFinal = shown()?.dataset.final === "yes";
  if (isFinal && !before) document.body.dispatchEvent(new CustomEvent("hub:submission-final"));
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-print]")) window.print();
});
document.addEventListener("htmx:afterSettle", announceEnd);
