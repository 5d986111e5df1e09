
// The page of a run that goes on: it asks its own server for news and keeps the reader's place.
(() => {
  const every = 3000;
  let known = document.body.dataset.version;
  const keep = () => [...document.querySelectorAll("details")].map((each) => each.open);
  const refresh = async () => {
    const answer = await fetch("page");
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    const open = keep();
    const way = document.querySelector(".ways input:checked");
    for (const name of ["header", "nav", "main", "footer"]) {
      document.querySelector(name).replaceWith(next.querySelector(name));
    }
    const details = [...document.querySelectorAll("details")];
    if (details.length === open.length) details.forEach((each, i) => { each.open = open[i]; });
    if (way) {
      const same = document.querySelector(`.ways input[value="${way.value}"]`);
      if (same) same.checked = true;
    }
    document.dispatchEvent(new Event("mmalign:changed"));
  };
  const busy = () => [...document.querySelectorAll("audio")].some((each) => !each.paused);
  const look = async () => {
    try {
      const state = await (await fetch("state")).json();
      const line = document.querySelector(".progress");
      if (line) line.textContent = state.sentence;
      if (state.version !== known && !busy()) {
        await refresh();
        known = state.version;
      }
    } catch {
      const line = document.querySelector(".progress");
      if (line) line.textContent = "The server of this page does not answer any more; what is shown is what it last said.";
    }
    setTimeout(look, every);
  };
  setTimeout(look, every);
})();
