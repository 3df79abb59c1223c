// Light or dark: the reader's choice, else the system's. Loaded before the page is drawn.
(() => {
  const stored = localStorage.getItem("hub-theme");
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  document.documentElement.dataset.bsTheme = stored ?? system;
})();
