// A preview picture that cannot be loaded says so in its place.
for (const frame of document.querySelectorAll("[data-preview]")) {
  frame.querySelector("img")?.addEventListener("error", () => {
    const words = document.createElement("div");
    words.className = "none";
    words.textContent = "The preview could not be loaded. Reload the page; if it fails again, tell the administrator.";
    frame.replaceChildren(words);
  });
}
