// An image to paint a mask on: brush, eraser, rectangle, undo, by mouse and by keyboard. The mask goes to the kernel as
// one byte a pixel, 1 where it is drawn anew, after each stroke.
const TOOLS = { b: "brush", e: "eraser", r: "rectangle" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const MOST_UNDONE = 50;

function render({ model, el, signal }) {
  const side = model.get("side");
  const ink = new Uint8Array(side * side);
  const past = [];
  let tool = "brush";
  let radius = Math.max(1, Math.round(side / 16));
  let at = [side / 2, side / 2]; // of the pen, in pixels of the image
  let corner = null; // where a rectangle began

  const canvas = make("canvas", { width: side, height: side, tabindex: 0, role: "application" });
  const pen = canvas.getContext("2d");
  const image = make("img", { alt: "The image to edit" });
  const words = make("p", { class: "chosen-keys", "aria-live": "polite" });
  const buttons = Object.entries(TOOLS).map(([key, name]) => button(name, `${name} (${key})`, () => choose(name)));
  const size = make("input", { type: "range", min: 1, max: Math.round(side / 4), title: "Radius of the brush ([ and ])",
    "aria-label": "Radius of the brush" });
  const undoing = button("undo", "Take back the last stroke (Ctrl+Z)", undo);
  const clearing = button("clear", "Start again", () => stroke(() => ink.fill(0)));
  const root = make("div", { class: "chosen-canvas" },
    make("div", { class: "chosen-row" }, ...buttons, size, undoing, clearing),
    make("div", { class: "chosen-easel" }, image, canvas), words);
  el.replaceChildren(root);

  function button(name, tip, act) {
    const made = make("button", { title: tip, class: "jupyter-button chosen-button" }, name);
    made.addEventListener("click", act, { signal });
    return made;
  }

  function choose(name) {
    [tool, corner] = [name, null];
    show();
  }

  function stroke(paint) {
    past.push(ink.slice());
    if (past.length > MOST_UNDONE) past.shift();
    paint();
    send();
  }

  function undo() {
    if (past.length) ink.set(past.pop());
    corner = null;
    send();
  }

  function send() {
    model.set("painted", new DataView(ink.slice().buffer));
    model.save_changes();
    show();
  }

  function dot([x, y]) {
    const value = tool === "brush" ? 1 : 0;
    for (let row = Math.max(0, Math.ceil(y - radius)); row <= Math.min(side - 1, y + radius); row++) {
      const half = Math.sqrt(radius ** 2 - (row - y) ** 2);
      const [from, to] = [Math.max(0, Math.ceil(x - half)), Math.min(side, Math.floor(x + half) + 1)];
      if (from < to) ink.fill(value, row * side + from, row * side + to);
    }
  }

  function line(from, to) {
    const steps = Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1])) || 1;
    for (let i = 0; i <= steps; i++) dot(from.map((v, k) => v + ((to[k] - v) * i) / steps));
  }

  function box(a, b) {
    const [left, right] = [a[0], b[0]].sort((u, v) => u - v).map(Math.floor);
    const [top, bottom] = [a[1], b[1]].sort((u, v) => u - v).map(Math.floor);
    for (let y = top; y <= Math.min(bottom, side - 1); y++) ink.fill(1, y * side + left, y * side + Math.min(right + 1, side));
  }

  function show() {
    const data = pen.createImageData(side, side);
    ink.forEach((on, i) => { if (on) data.data.set([255, 60, 60, 150], 4 * i); });
    pen.putImageData(data, 0, 0);
    pen.lineWidth = side / 128;
    for (const colour of ["#000", "#fff"]) { // to be seen on any ground
      pen.strokeStyle = colour;
      pen.setLineDash(colour === "#fff" ? [side / 32] : []);
      pen.beginPath();
      if (tool !== "rectangle") pen.arc(...at, radius, 0, 7);
      else pen.rect(...(corner ?? at), at[0] - (corner ?? at)[0] || 1, at[1] - (corner ?? at)[1] || 1);
      pen.stroke();
    }
    buttons.forEach((each, i) => each.setAttribute("aria-pressed", Object.values(TOOLS)[i] === tool));
    undoing.disabled = !past.length;
    size.value = radius;
    const share = ink.reduce((sum, on) => sum + on, 0) / ink.length;
    const told = `${tool}, ${(100 * share).toFixed(1)} % of the image is drawn anew. Keys: arrows move (Shift: farther), space `
      + "paints, b e r choose, [ ] radius, Ctrl+Z takes back.";
    canvas.setAttribute("aria-label", `Mask: ${told}`);
    words.textContent = told;
  }

  const within = (v) => Math.min(side - 1, Math.max(0, v));
  function placeOf(event) {
    const seen = canvas.getBoundingClientRect();
    return [event.clientX - seen.left, event.clientY - seen.top].map((v, k) => within((v * side) / [seen.width, seen.height][k]));
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    at = placeOf(event);
    if (tool === "rectangle") corner = at;
    else { past.push(ink.slice()); dot(at); }
    show();
  }, { signal });
  canvas.addEventListener("pointermove", (event) => {
    const to = placeOf(event);
    if (event.buttons & 1 && canvas.hasPointerCapture(event.pointerId) && tool !== "rectangle") line(at, to);
    at = to;
    show();
  }, { signal });
  canvas.addEventListener("pointerup", (event) => {
    const [from, to] = [corner, placeOf(event)];
    corner = null;
    if (from) stroke(() => box(from, to));
    else send();
  }, { signal });
  size.addEventListener("input", () => { radius = Number(size.value); show(); }, { signal });

  function press() {
    if (tool !== "rectangle") return stroke(() => dot(at));
    const from = corner;
    corner = from ? null : at;
    if (from) stroke(() => box(from, at));
    return show();
  }

  keepKeys(root, (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "z") undo();
    else if (event.ctrlKey || event.metaKey || event.altKey || event.target !== canvas) return false;
    else if (ARROWS[event.key]) {
      const step = (event.shiftKey ? 8 : 1) * Math.max(1, side / 64);
      at = at.map((v, k) => within(v + step * ARROWS[event.key][k]));
      show();
    } else if (event.key === " " || event.key === "Enter") press();
    else if (event.key === "[" || event.key === "]") {
      radius = Math.min(side / 4, Math.max(1, radius + (event.key === "]" ? 1 : -1)));
      show();
    } else if (TOOLS[event.key]) choose(TOOLS[event.key]);
    else return false;
    return true;
  });

  function take() {
    const given = model.get("painted");
    if (given.byteLength === ink.length) ink.set(new Uint8Array(given.buffer, given.byteOffset, given.byteLength));
    image.src = URL.createObjectURL(new Blob([model.get("image")], { type: "image/webp" }));
    show();
  }
  model.on("change:image change:painted", take);
  take();
}
export default { render };
