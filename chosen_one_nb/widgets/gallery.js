// The gallery: images in groups; mouse and keyboard select, leave out, choose and look closer.
function render({ model, el, signal }) {
  const tiles = new Map(); // index -> tile
  let at = null; // the tile that has, or last had, the keyboard focus
  let anchor = null; // where a shift-click range begins

  const root = make("div", { class: "chosen-gallery", role: "listbox", "aria-multiselectable": "true" });
  const dialog = make("dialog", { class: "chosen-closer" });
  el.replaceChildren(root, dialog);
  fillOnArrival(el, signal);

  const write = (changes) => {
    for (const [trait, value] of Object.entries(changes)) model.set(trait, value);
    model.save_changes();
  };
  // Messages arrive in the order in which they are sent, also with the clicks on other widgets' buttons; a trait
  // written while an earlier one is still under way would wait, and be overtaken by them.
  const toggle = (trait, index) => model.send({ do: "toggle", trait, index });
  const select = (ids) => model.send({ do: "select", ids });
  const label = (index) => model.get("labels")[index] ?? `image ${index}`;
  const leaveOut = (index) => model.get("can_exclude") && toggle("excluded", index);

  // --- drawing -------------------------------------------------------------------------------------------------
  function build() {
    const refocus = root.contains(document.activeElement);
    tiles.clear();
    root.setAttribute("aria-label", model.get("name"));
    const groups = model.get("sections").map((section) => group(section));
    if (!groups.length) groups.push(make("p", { class: "chosen-empty" }, model.get("empty")));
    root.replaceChildren(...groups);
    resize();
    mark();
    moveTo(tiles.get(at) ? at : (tiles.keys().next().value ?? null), refocus);
  }

  function group({ title, sign, colour, note, ids, dropped }) {
    const heading = title
      ? make("div", { class: "chosen-heading" }, sign ? signOf(sign, colour) : null,
        make("strong", {}, title), make("span", { class: "chosen-note" }, note ?? ""))
      : null;
    const grid = make("div", { class: "chosen-grid" }, ...ids.map((index) => tile(index, sign, colour)));
    return make("section", { class: dropped ? "chosen-dropped" : "", role: "group", "aria-label": title || "images" },
      heading, grid);
  }

  function tile(index, sign, colour) {
    const text = label(index);
    const out = make("button", { class: "chosen-out", tabindex: "-1", title: "Leave out or put back (space)" }, "⊘");
    const closer = make("button", { class: "chosen-zoom", tabindex: "-1", title: "Look closer (f)" }, "⤢");
    const box = make("div",
      { class: "chosen-tile", role: "option", tabindex: "-1", title: text, "aria-label": text, "data-index": index },
      imageElement(model.get("thumbnails"), index, text),
      sign ? make("span", { class: "chosen-corner", style: `color:${colour}`, "aria-hidden": "true" }, sign) : null,
      make("span", { class: "chosen-mark", "aria-hidden": "true" }), closer, out);
    out.addEventListener("click", (event) => { event.stopPropagation(); leaveOut(index); });
    closer.addEventListener("click", (event) => { event.stopPropagation(); look(index); });
    box.addEventListener("click", (event) => press(index, event.shiftKey));
    box.addEventListener("dblclick", () => look(index));
    box.addEventListener("pointerenter", () => hover(index));
    box.addEventListener("focus", () => { at = index; hover(index); });
    tiles.set(index, box);
    return box;
  }

  function mark() {
    const [selected, excluded, chosen] = ["selected", "excluded", "chosen"].map((trait) => new Set(model.get(trait)));
    for (const [index, box] of tiles) {
      const states = { selected: selected.has(index), excluded: excluded.has(index), chosen: chosen.has(index) };
      for (const [state, on] of Object.entries(states)) box.classList.toggle(`is-${state}`, on);
      box.setAttribute("aria-selected", states.selected);
      const words = Object.keys(states).filter((state) => states[state]).map((s) => (s === "excluded" ? "left out" : s));
      box.setAttribute("aria-label", [label(index), ...words].join(", "));
      box.querySelector(".chosen-mark").textContent = states.excluded ? "✕" : states.chosen ? "★" : "";
    }
    if (dialog.open) caption();
  }

  function resize() {
    root.style.setProperty("--tile", `${model.get("size")}px`);
  }

  function showHovered() {
    root.querySelector(".is-hovered")?.classList.remove("is-hovered");
    tiles.get(model.get("hovered"))?.classList.add("is-hovered");
  }

  function scrollToFocused() {
    const box = tiles.get(model.get("focused"));
    if (!box) return;
    const [inner, outer] = [box.getBoundingClientRect(), root.getBoundingClientRect()];
    root.scrollTop += inner.top - outer.top - (outer.height - inner.height) / 2; // never scrolls the notebook itself
    moveTo(model.get("focused"), false);
  }

  // --- mouse and keyboard --------------------------------------------------------------------------------------
  function press(index, ranged) {
    moveTo(index, true);
    if (model.get("click") === "exclude") return leaveOut(index);
    const order = [...tiles.keys()];
    const range = ranged && anchor != null ? between(order, anchor, index) : null;
    anchor = index;
    if (range) select([...model.get("selected"), ...range]);
    else toggle("selected", index);
  }

  function between(order, a, b) {
    const [first, last] = [order.indexOf(a), order.indexOf(b)].sort((x, y) => x - y);
    return order.slice(first, last + 1);
  }

  let dwell = 0;
  function hover(index) {
    clearTimeout(dwell);
    dwell = setTimeout(() => model.get("hovered") !== index && write({ hovered: index }), 40);
  }

  function moveTo(index, focus) {
    tiles.get(at)?.setAttribute("tabindex", "-1");
    at = index;
    const box = tiles.get(index);
    box?.setAttribute("tabindex", "0");
    if (box && focus) box.focus({ preventScroll: !focus });
  }

  function neighbour(key) {
    const order = [...tiles.keys()];
    const place = order.indexOf(at);
    if (key === "ArrowLeft") return order[place - 1];
    if (key === "ArrowRight") return order[place + 1];
    if (key === "Home") return order[0];
    if (key === "End") return order.at(-1);
    return inNextRow(key === "ArrowDown" ? 1 : -1);
  }

  function inNextRow(step) {
    const here = tiles.get(at).getBoundingClientRect();
    let best = null;
    for (const [index, box] of tiles) {
      const there = box.getBoundingClientRect();
      const down = (there.top - here.top) * step;
      if (down < here.height / 2) continue;
      const cost = down * 10 + Math.abs(there.left - here.left);
      if (!best || cost < best.cost) best = { index, cost };
    }
    return best?.index;
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return false;
    if (["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) {
      const next = at == null ? undefined : neighbour(event.key);
      if (next !== undefined) moveTo(next, true);
      if (next !== undefined && dialog.open) look(next);
      return true;
    }
    const acts = {
      " ": () => leaveOut(at),
      s: () => toggle("selected", at),
      f: () => look(at),
      Enter: () => model.send({ do: "choose", index: at }),
      z: () => model.send({ do: "undo" }),
      Z: () => model.send({ do: "redo" }),
      y: () => model.send({ do: "redo" }),
      Escape: () => (dialog.open ? dialog.close() : select([])),
    };
    if (!(event.key in acts) || (at == null && !"zZy".includes(event.key))) return false;
    acts[event.key]();
    return true;
  }

  // --- looking closer ------------------------------------------------------------------------------------------
  function look(index) {
    moveTo(index, false);
    dialog.replaceChildren(
      make("form", { method: "dialog" }, make("button", { class: "chosen-close", title: "Close (Esc)" }, "✕")),
      imageElement(model.get("thumbnails"), index, label(index)), make("p", { "aria-live": "polite" }));
    if (!dialog.open) dialog.showModal();
    caption();
    write({ zoomed: index });
  }

  function caption() {
    const line = dialog.querySelector("p");
    if (line) line.textContent = tiles.get(at)?.getAttribute("aria-label") ?? "";
  }

  function enlarge() {
    const { index, data } = model.get("large");
    const image = dialog.querySelector("img");
    if (!dialog.open || index !== at || !image || !data) return;
    const url = URL.createObjectURL(new Blob([data], { type: "image/webp" }));
    image.onload = () => URL.revokeObjectURL(url);
    image.src = url;
  }

  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => { write({ zoomed: -1 }); tiles.get(at)?.focus(); });
  keepKeys(root, key);
  keepKeys(dialog, (event) => !["Tab", "Enter", " "].includes(event.key) && key(event));

  model.on("change:sections change:thumbnails change:labels change:name change:empty", coalesce(build));
  model.on("change:selected change:excluded change:chosen", coalesce(mark));
  model.on("change:hovered", showHovered);
  model.on("change:focused", scrollToFocused);
  model.on("change:size", resize);
  model.on("change:large", enlarge);
  build();
}
export default { render };
