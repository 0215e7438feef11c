// What needs no server: links between cards and map, both sensors of a result, patches that resemble a chosen one.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const same = (tile) => all(".explorer .card, .explorer .marker").filter((item) => item.dataset.tile === tile);
  const link = (tile) => {
    all(".explorer .linked").forEach((item) => item.classList.remove("linked"));
    if (tile) same(tile).forEach((item) => item.classList.add("linked"));
  };
  const go = (item, block) => {
    if (!item) return;
    item.scrollIntoView({ block, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    item.focus({ preventScroll: true });
    link(item.dataset.tile);
  };
  const linked = (event) => event.target.closest?.(".explorer .card, .explorer .marker");
  const follow = (event) => { const item = linked(event); if (item) link(item.dataset.tile); };
  document.addEventListener("focusin", follow);
  // A card that scrolls under a mouse at rest is not pointed at.
  document.addEventListener("pointermove", (event) => { if (event.movementX || event.movementY) follow(event); });

  const openCard = (marker) => go(same(marker.dataset.tile).find((item) => item.matches(".card")), "center");
  const toggleBoth = (button) => {
    const more = document.getElementById(button.getAttribute("aria-controls"));
    more.hidden = !more.hidden;
    button.setAttribute("aria-expanded", String(!more.hidden));
  };

  const choose = (grid, patch) => {
    const box = grid.closest(".similarity");
    const matrix = (box.matrix ??= JSON.parse(box.dataset.matrix));
    const other = all("svg.patches", box).find((item) => item !== grid);
    const row = grid.dataset.role === "query" ? matrix[patch] : matrix.map((values) => values[patch]);
    grid.dataset.at = patch;
    all("rect", box).forEach((square) => square.classList.remove("chosen"));
    all("rect", grid)[patch].classList.add("chosen");
    all("rect", grid).forEach((square) => square.style.setProperty("--v", 1));
    const [low, high] = [Math.min(...row), Math.max(...row)];
    all("rect", other).forEach((square, place) => square.style.setProperty("--v", (row[place] - low) / Math.max(high - low, 1e-6)));
    const best = row.indexOf(high);
    all(".bar span", box).forEach((end, place) => { end.textContent = [low, high][place].toFixed(2); });
    const side = Number(grid.dataset.side);
    const named = (place) => `row ${Math.floor(place / side) + 1}, column ${(place % side) + 1}`;
    box.querySelector(".chosen[role]").textContent =
      `Patch at ${named(patch)} of the ${grid.dataset.role}: most like ${named(best)} of the ${other.dataset.role}, ${row[best].toFixed(2)}.`;
  };

  // What was asked for comes into view when it is there; each search is a step of the browser's history.
  let asked = null;
  // An answer is drawn in parts: what is seen is looked at when nothing has changed for a moment.
  const settled = (seen) => {
    const begin = performance.now();
    let last = begin;
    const watcher = new MutationObserver(() => { last = performance.now(); });
    watcher.observe(document.body, { subtree: true, childList: true });
    const look = () => {
      const now = performance.now();
      if (now - last < 80 && now - begin < 1500) return setTimeout(look, 30);
      watcher.disconnect();
      seen();
    };
    setTimeout(look, 30);
  };
  const view = (item) => item?.scrollIntoView({ block: "start", behavior: "auto" });
  const bring = (wanted) => {
    const wrong = document.querySelector("#status [role=alert]");
    const inside = (item, room) => { const { top } = item.getBoundingClientRect(); return top >= 0 && top < innerHeight - room; };
    if (wrong) { if (!inside(wrong, 60)) view(wrong); return; }
    const why = document.getElementById("why"), cards = document.querySelector("#gallery .card, #gallery p");
    if (wanted?.closed) {
      const card = same(wanted.closed).find((item) => item.matches(".card"));
      card?.scrollIntoView({ block: "center" });
      card?.querySelector("[data-action=why]")?.focus({ preventScroll: true });
    } else if (wanted === "why" && why) { view(why); why.focus({ preventScroll: true }); }
    else if (wanted === "results" && cards && !inside(cards, 150)) view(document.getElementById("query"));
  };
  let begun = false;
  window.explorer = {
    returned() { settled(() => bring("results")); },
    shown(url) {
      const other = url !== location.search.slice(1);
      if (other) history[begun ? "pushState" : "replaceState"](null, "", url ? "?" + url : location.pathname);
      const wanted = asked ?? (other && begun ? "results" : null);
      asked = null;
      begun = true;
      settled(() => bring(wanted));
    },
  };
  addEventListener("popstate", () => document.querySelector("#back")?.click());

  const enlarge = (button) => {
    const box = document.createElement("dialog");
    const picture = button.querySelector("img");
    box.className = "explorer enlarged";
    box.append(picture.cloneNode(), Object.assign(document.createElement("p"), { textContent: picture.alt }),
      Object.assign(document.createElement("button"), { type: "button", textContent: "Close" }));
    box.addEventListener("click", () => box.close());
    box.addEventListener("close", () => { box.remove(); button.focus({ preventScroll: true }); });
    document.body.append(box);
    box.showModal();
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".explorer [data-action], #go, #again");
    if (button) asked = button.dataset.action === "why" ? "why" : ["go", "again"].includes(button.id) || button.dataset.action === "query" ? "results" : null;
    if (button?.dataset.action === "close") asked = { closed: button.dataset.tile };
    const picture = event.target.closest?.(".explorer .enlarge");
    if (picture) return enlarge(picture);
    const marker = event.target.closest?.(".explorer .marker");
    if (marker) return openCard(marker);
    const both = event.target.closest?.("[data-both]");
    if (both) return toggleBoth(both);
    const show = event.target.closest?.("[data-show]");
    if (show) return go(same(show.dataset.show).find((item) => item.matches(".marker")), "center");
    const patch = event.target.closest?.(".explorer [data-patch]");
    if (patch) choose(patch.closest("svg"), Number(patch.dataset.patch));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.closest?.("#where, #tile")) asked = "results";
    if (event.key === "Escape" && event.target.closest?.("#why")) document.querySelector("#why .close")?.click();
    const marker = event.target.closest?.(".explorer .marker");
    if (marker && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); return openCard(marker); }
    const grid = event.target.closest?.("svg.patches");
    if (!grid) return;
    const side = Number(grid.dataset.side);
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: side, ArrowUp: -side }[event.key];
    if (!step) return;
    event.preventDefault();
    const now = grid.dataset.at === undefined ? (step > 0 ? -step : 0) : Number(grid.dataset.at);
    const next = now + step;
    if (next >= 0 && next < side * side && (Math.abs(step) > 1 || Math.floor(next / side) === Math.floor(Math.max(now, 0) / side))) choose(grid, next);
  });
})();
