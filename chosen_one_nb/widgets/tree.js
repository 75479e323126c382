// The run as a small tree: a column per iteration, a row per branch.
const [WIDTH, HEIGHT, FACE] = [104, 58, 40];

function render({ model, el, signal }) {
  const root = make("div", { class: "chosen-tree", role: "group", "aria-label": "Iterations and branches of the run" });
  el.replaceChildren(root);
  fillOnArrival(el, signal);

  function build() {
    const nodes = model.get("nodes");
    const place = Object.fromEntries(nodes.map((node) => [node.id, node]));
    const columns = 1 + Math.max(0, ...nodes.map((node) => node.column));
    const rows = 1 + Math.max(0, ...nodes.map((node) => node.row));
    root.style.width = `${columns * WIDTH}px`;
    root.style.height = `${rows * HEIGHT}px`;
    const focused = root.querySelector(":focus")?.dataset.node;
    root.replaceChildren(lines(nodes, place, columns, rows), ...nodes.map(button));
    if (focused) root.querySelector(`[data-node="${focused}"]`)?.focus();
  }

  function lines(nodes, place, columns, rows) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("width", columns * WIDTH);
    svg.setAttribute("height", rows * HEIGHT);
    svg.setAttribute("aria-hidden", "true");
    for (const node of nodes.filter((node) => node.from in place)) {
      const from = place[node.from];
      const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
      path.setAttribute("d", from.column === node.column ? down(from, node) : across(from, node));
      if (from.column === node.column) path.setAttribute("stroke-dasharray", "3 3"); // a branch shares the gallery
      svg.append(path);
    }
    return svg;
  }

  function across(from, node) {
    const [x0, y0] = [from.column * WIDTH + FACE, from.row * HEIGHT + FACE / 2 + 4];
    const [x1, y1] = [node.column * WIDTH + 4, node.row * HEIGHT + FACE / 2 + 4];
    return `M${x0} ${y0} C${x0 + 34} ${y0} ${x1 - 34} ${y1} ${x1} ${y1}`;
  }

  function down(from, node) {
    const x = from.column * WIDTH + FACE / 2 + 4;
    return `M${x} ${from.row * HEIGHT + FACE} L${x} ${node.row * HEIGHT + 4}`;
  }

  function button(node) {
    const box = make("button", { class: `chosen-node${node.shown ? " is-shown" : ""}`, title: node.title,
      "aria-label": node.title, "aria-current": node.shown ? "true" : "false", "data-node": node.id,
      style: `left:${node.column * WIDTH}px;top:${node.row * HEIGHT}px` },
    node.face >= 0 ? imageElement(node.thumbnails, node.face, `${node.id}: image ${node.face}`) : make("span", { class: "chosen-blank" }, "·"),
    make("span", { class: "chosen-words" }, make("strong", {}, node.id), make("span", {}, node.sign)));
    box.addEventListener("click", () => model.send({ do: "select", node: node.id }));
    return box;
  }

  keepKeys(root, () => false);
  model.on("change:nodes", coalesce(build));
  build();
}
export default { render };
