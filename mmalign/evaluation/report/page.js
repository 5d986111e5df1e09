
"use strict";
(() => {
  // Pairs of pictures: side by side, or one over the other under a slider.
  const ways = () => document.querySelector(".ways");
  const slide = (pair) => {
    const pictures = [...pair.querySelectorAll(":scope > .side > img")];
    if (pictures.length !== 2 || pair.querySelector(".over")) return;
    const over = document.createElement("div");
    over.className = "over";
    const range = document.createElement("input");
    Object.assign(range, { type: "range", min: 0, max: 100, value: 50 });
    range.setAttribute("aria-label", `${pictures[0].alt} left of the line, ${pair.querySelectorAll(".label")[1].textContent} right of it; the line, in per cent`);
    const moved = () => over.style.setProperty("--at", `${range.value}%`);
    range.addEventListener("input", moved);
    over.append(...pictures.map((each) => each.cloneNode()), range);
    moved();
    pair.prepend(over);
  };
  const shown = () => {
    if (!ways()) return;
    ways().hidden = false;
    const way = ways().querySelector("input:checked").value;
    document.querySelectorAll(".pair").forEach((pair) => {
      if (way === "slide") slide(pair);
      pair.classList.toggle("sliding", way === "slide" && !!pair.querySelector(".over"));
    });
  };
  document.addEventListener("change", (event) => { if (event.target.name === "way") shown(); });

  // Sounds: one at a time, a line where it plays, a click into the spectrogram goes there, a button to the other side.
  const lineOf = (audio) => {
    const heard = audio.parentElement.querySelector(".heard, figure > img");
    if (!heard || !heard.classList.contains("heard")) return null;
    let line = heard.querySelector(".playhead");
    if (!line) {
      line = document.createElement("span");
      line.className = "playhead";
      heard.append(line);
    }
    return line;
  };
  const follow = (audio) => {
    const line = lineOf(audio);
    if (line && audio.duration) line.style.left = `${(100 * audio.currentTime) / audio.duration}%`;
    if (!audio.paused) requestAnimationFrame(() => follow(audio));
  };
  document.addEventListener("play", (event) => {
    document.querySelectorAll("audio").forEach((other) => { if (other !== event.target) other.pause(); });
    follow(event.target);
  }, true);
  document.addEventListener("seeked", (event) => follow(event.target), true);
  document.addEventListener("click", (event) => {
    const heard = event.target.closest(".heard");
    const audio = heard && heard.parentElement.querySelector("audio");
    if (!audio) return;
    const box = heard.getBoundingClientRect();
    const go = () => { audio.currentTime = ((event.clientX - box.left) / box.width) * audio.duration; };
    if (audio.readyState) go(); else audio.addEventListener("loadedmetadata", go, { once: true });
    audio.play();
  });
  const switching = () => document.querySelectorAll(".cards.audio .pair").forEach((pair) => {
    const both = [...pair.querySelectorAll("audio")];
    if (both.length !== 2 || pair.parentElement.querySelector(".switch")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "switch";
    button.textContent = "Play, or switch sides at the same moment";
    button.addEventListener("click", () => {
      const from = both.find((each) => !each.paused);
      const to = from ? both[1 - both.indexOf(from)] : both[0];
      const at = from ? from.currentTime : 0;
      if (from) from.pause();
      const go = () => { to.currentTime = at; };
      if (to.readyState) go(); else to.addEventListener("loadedmetadata", go, { once: true });
      to.play();
    });
    pair.after(button);
  });

  // The section that is read is marked in the menu.
  const reading = () => {
    const links = [...document.querySelectorAll("nav a")];
    const tops = links.map((link) => document.querySelector(link.getAttribute("href")).getBoundingClientRect().top);
    const at = tops.filter((top) => top < 120).length - 1;
    links.forEach((link, i) => {
      if (i === at) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
    });
  };
  document.addEventListener("scroll", reading, { passive: true });

  const begin = () => { shown(); switching(); reading(); };
  document.addEventListener("mmalign:changed", begin);
  begin();
})();
