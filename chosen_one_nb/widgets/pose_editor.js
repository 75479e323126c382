// A skeleton whose joints are dragged, or moved by the arrow keys when they have the focus.
const SHIFT = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const STEP = 1 / 128;
const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function render({ model, el, signal }) {
  const past = [];
  let joints = structuredClone(model.get("joints"));
  const stage = shape("svg", { viewBox: "0 0 1 1", role: "figure", "aria-label": "Skeleton: joints to drag" });
  const words = make("p", { class: "chosen-keys", "aria-live": "polite" });
  const undoing = make("button", { title: "Take back the last move (Ctrl+Z)", class: "jupyter-button chosen-button" }, "undo");
  const root = make("div", { class: "chosen-canvas" }, make("div", { class: "chosen-row" }, undoing),
    make("div", { class: "chosen-easel" }, stage), words);
  el.replaceChildren(root);

  const names = Object.keys(joints);
  const colour = (i, dark) => `hsl(${(20 * i) % 360} 100% ${dark ? 30 : 50}%)`; // as in the hint that is drawn from it
  const limbs = model.get("limbs").map((pair, i) => {
    const made = shape("line", { stroke: colour(i, true), "stroke-width": 1 / 64, "stroke-linecap": "round" });
    stage.append(made);
    return [pair, made];
  });
  const dots = names.map((name, i) => {
    const dot = shape("circle", { r: 0.018, fill: colour(i), tabindex: 0, role: "button", "data-joint": name });
    dot.append(shape("title", {}));
    dot.addEventListener("pointerdown", (event) => {
      dot.setPointerCapture(event.pointerId);
      remember();
      dot.focus();
    }, { signal });
    dot.addEventListener("pointermove", (event) => {
      if (!dot.hasPointerCapture(event.pointerId)) return;
      const seen = stage.getBoundingClientRect();
      move(name, (event.clientX - seen.left) / seen.width, (event.clientY - seen.top) / seen.height);
    }, { signal });
    dot.addEventListener("pointerup", send, { signal });
    stage.append(dot);
    return dot;
  });

  function remember() {
    past.push(structuredClone(joints));
    if (past.length > 100) past.shift();
  }

  function move(name, x, y) {
    joints[name] = [x, y].map((v) => Math.min(1, Math.max(0, v)));
    show();
  }

  function send() {
    model.set("joints", structuredClone(joints));
    model.save_changes();
    show();
  }

  function undo() {
    if (past.length) joints = past.pop();
    send();
  }

  function show() {
    limbs.forEach(([[a, b], made]) => {
      const [from, to] = [joints[a], joints[b]];
      made.style.display = from && to ? "" : "none";
      if (from && to) for (const [k, v] of Object.entries({ x1: from[0], y1: from[1], x2: to[0], y2: to[1] })) made.setAttribute(k, v);
    });
    dots.forEach((dot, i) => {
      const [x, y] = joints[names[i]] ?? [0.03 + 0.05 * (i % 18), 0.97]; // what is not to be seen waits below
      dot.setAttribute("cx", x);
      dot.setAttribute("cy", y);
      dot.setAttribute("opacity", joints[names[i]] ? 1 : 0.4);
      const told = joints[names[i]] ? `${x.toFixed(2)}, ${y.toFixed(2)}` : "not to be seen";
      dot.setAttribute("aria-label", `${names[i]}: ${told}`);
      dot.firstChild.textContent = `${names[i]}: ${told}`;
    });
    undoing.disabled = !past.length;
    words.textContent = "Drag joints, or Tab to one and press arrows (Shift: farther), Delete to leave it out, Ctrl+Z to take back.";
  }

  undoing.addEventListener("click", undo, { signal });
  keepKeys(root, (event) => {
    const name = event.target.dataset?.joint;
    if ((event.ctrlKey || event.metaKey) && event.key === "z") undo();
    else if (event.ctrlKey || event.metaKey || event.altKey || !name) return false;
    else if (SHIFT[event.key]) {
      remember();
      const step = (event.shiftKey ? 8 : 1) * STEP;
      move(name, ...(joints[name] ?? [0.5, 0.5]).map((v, k) => v + step * SHIFT[event.key][k]));
      send();
    } else if (event.key === "Delete" && Object.values(joints).filter(Boolean).length > 1) {
      remember();
      joints[name] = null;
      send();
    } else return false;
    return true;
  });
  model.on("change:joints", () => { joints = structuredClone(model.get("joints")); show(); });
  show();
}
export default { render };
