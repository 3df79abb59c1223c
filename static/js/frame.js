// The page's frame: navigation on small screens, theme switch, CSRF for htmx.
const rail = document.querySelector("[data-rail]");

document.addEventListener("click", (event) => {
  const toggle = event.target.closest("[data-rail-toggle]");
  if (toggle && rail) {
    const open = rail.classList.toggle("is-open");
    toggle.setAttribute("aria-expanded", String(open));
  } else if (rail && !event.target.closest("[data-rail]")) {
    rail.classList.remove("is-open");
  }
  if (event.target.closest("[data-theme-toggle]")) {
    const next = document.documentElement.dataset.bsTheme === "dark" ? "light" : "dark";
    document.documentElement.dataset.bsTheme = next;
    localStorage.setItem("hub-theme", next);
    document.dispatchEvent(new CustomEvent("hub:theme"));
  }
});

// Back in history keeps what was typed into the form; the link itself would open it anew.
document.addEventListener("click", (event) => {
  const link = event.target.closest("[data-back]");
  if (!link || history.length < 2 || link.href !== document.referrer) return;
  event.preventDefault();
  history.back();
});

// A choice that belongs in the page's address, so that a reload or a shared link keeps it; links that go on with it,
// marked data-carry, take it along.
document.addEventListener("change", (event) => {
  const name = event.target.dataset?.remember;
  if (!name) return;
  const address = new URL(location.href);
  address.searchParams.set(name, event.target.value);
  history.replaceState(history.state, "", address);
  for (const link of document.querySelectorAll(`a[data-carry="${name}"]`)) {
    const next = new URL(link.href);
    next.searchParams.set(name, event.target.value);
    link.href = next;
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") rail?.classList.remove("is-open");
});

document.addEventListener("htmx:configRequest", (event) => {
  event.detail.headers["X-CSRFToken"] = csrfToken();
});

// A refused request shows the problem's sentence in the place the answer would have had.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status >= 400) event.detail.shouldSwap = true;
});

export function csrfToken() {
  return document.querySelector("meta[name=csrf-token]")?.content ?? "";
}
