// A tick box with a tooltip.
function render({ model, el, signal }) {
  const box = make("input", { type: "checkbox" });
  const words = make("span");
  const label = make("label", { class: "chosen-switch" }, box, words);
  el.replaceChildren(label);

  function show() {
    box.checked = model.get("value");
    box.disabled = model.get("disabled");
    words.textContent = model.get("description");
    label.title = model.get("tooltip");
  }

  box.addEventListener("change", () => {
    model.set("value", box.checked);
    model.save_changes();
  }, { signal });
  keepKeys(el, () => false);
  model.on("change:value change:disabled change:description change:tooltip", show);
  show();
}
export default { render };
