let last = null;
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (!button) return;
  last = button.dataset;
  trigger("click", { ...last });
});
watch("value", () => {
  const again = last && [...element.querySelectorAll("[data-action]")].find(
    (button) => button.dataset.action === last.action && button.dataset.tile === last.tile);
  last = null;
  if (again) again.focus({ preventScroll: true });
});
