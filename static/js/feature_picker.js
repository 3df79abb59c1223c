// A field marked data-suggest="address": offers the features whose name holds what was typed, so that one is chosen
// from 100,000 without sending them all.
const WAIT_MS = 250;

function start(input) {
  let timer = 0;
  let asked = 0;
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      asked += 1;
      const mine = asked;
      const answer = await fetch(`${input.dataset.suggest}?q=${encodeURIComponent(input.value)}`);
      if (!answer.ok || mine !== asked) return;
      const { features } = await answer.json();
      input.list.replaceChildren(...features.map((item) => new Option(item.unit, item.name)));
    }, WAIT_MS);
  });
}

document.querySelectorAll("[data-suggest]").forEach(start);
