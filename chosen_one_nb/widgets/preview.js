// The image behind a point of the map: its place is fixed, so it never covers the plot and never flickers.
const DWELL = 125; // ms on a point before the image changes; the ring on the map moves at once

function render({ model, el, signal }) {
  const root = make("div", { class: "chosen-preview", "aria-live": "polite" });
  el.replaceChildren(root);
  fillOnArrival(el, signal);
  let timer = 0;

  function build() {
    const index = model.get("index");
    if (index < 0) return root.replaceChildren(make("p", { class: "chosen-empty" }, model.get("empty")));
    const [title, ...lines] = model.get("lines");
    root.dataset.index = index;
    root.replaceChildren(
      imageElement(model.get("thumbnails"), index, [title, ...lines].join(", ")),
      make("div", { class: "chosen-about" }, make("strong", {}, title), ...lines.map((line) => make("span", {}, line))),
      make("div", { class: "chosen-near", title: "Its nearest images in feature space, not on the map" },
        model.get("neighbours").length ? make("span", {}, "true neighbours") : null,
        make("div", {}, ...model.get("neighbours").map(near))));
  }

  function near({ index, text }) {
    const button = make("button", { title: `${text}: show it in the gallery` }, imageElement(model.get("thumbnails"), index, text));
    button.addEventListener("click", () => model.send({ do: "look", index }));
    return button;
  }

  function soon() {
    clearTimeout(timer);
    timer = setTimeout(build, root.dataset.index === undefined ? 0 : DWELL);
  }

  keepKeys(root, () => false);
  model.on("change:index change:lines change:neighbours change:thumbnails", soon);
  build();
}
export default { render };
