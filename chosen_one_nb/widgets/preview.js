// The image behind a point of the map. It floats over the plot, on the side away from the pointer, and is
// transparent to it.
const DWELL = 125; // ms on a point before the image changes; the ring on the map moves at once

function render({ model, el, signal }) {
  const root = make("div", { class: "chosen-preview", "aria-live": "polite" });
  el.replaceChildren(root);
  el.classList.add("chosen-preview-at");
  fillOnArrival(el, signal);
  let timer = 0;

  function build() {
    const index = model.get("index");
    root.hidden = index < 0;
    if (index < 0) return;
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

  // Away from the pointer: at the bottom while that is in the upper half, and the other way round.
  function begin() {
    const map = el.closest(".chosen-map");
    if (!map) return signal.aborted || requestAnimationFrame(begin);
    map.addEventListener("pointermove", ({ clientY }) => {
      const { top, height } = map.getBoundingClientRect();
      el.classList.toggle("is-above", clientY - top > height / 2);
    }, { signal });
  }

  begin();
  keepKeys(root, () => false);
  model.on("change:index change:lines change:neighbours change:thumbnails", soon);
  build();
}
export default { render };
