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
  for (const name of ["mouseover", "focusin"])
    document.addEventListener(name, (event) => { const item = linked(event); if (item) link(item.dataset.tile); });

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

  document.addEventListener("click", (event) => {
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
