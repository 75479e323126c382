// What a cluster shares: a ranked table with bars and images, answers to correct, and where in the images it is.
const ANSWERS = {
  asked: "the prompt asks for it", identity: "it belongs to the foreground", incidental: "it came along with the scene",
};

function render({ model, el, signal }) {
  const root = make("div", { class: "chosen-attributes" });
  el.replaceChildren(root);
  fillOnArrival(el, signal);
  let urls = [];
  const tell = (action, more = {}) => model.send({ do: action, ...more });

  function build() {
    const focused = root.querySelector(":focus")?.dataset.key;
    urls.forEach((url) => URL.revokeObjectURL(url));
    urls = [];
    const rows = model.get("rows");
    root.replaceChildren(
      ...model.get("words").map(([kind, text]) => make("p", { class: `chosen-said is-${kind}` }, text)),
      ...(rows.length ? [table(rows)] : []),
      ...model.get("strips").map(strip));
    if (focused) root.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  function table(rows) {
    const head = ["attribute", "how much more here than in the rest", "what it is", "has it most", "has it least", ""];
    return make("table", {}, make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col" }, text)))),
      make("tbody", {}, ...rows.map(line)));
  }

  function line(row) {
    const lit = model.get("lit") === row.column;
    const name = make("button", { class: "chosen-name", "data-key": `light${row.column}`, "aria-pressed": String(lit),
      title: lit ? "Back to the colours of the clusters" : "Colour the map by it, sort the gallery by it, show where it is" },
    row.name);
    name.addEventListener("click", () => tell("light", { column: lit ? -1 : row.column }));
    return make("tr", { class: `${lit ? "is-lit" : ""}${row.finding ? "" : " is-faint"}`, "data-column": row.column },
      make("th", { scope: "row" }, name, make("small", {}, row.note)),
      make("td", {}, bar(row)), make("td", {}, answer(row)), make("td", {}, faces(row.most)), make("td", {}, faces(row.least)),
      make("td", { class: "chosen-acts" }, act(row, "leave_out", "Leave these out",
        `Choose this cluster without the images that have “${row.name}”`),
      act(row, "prefer_least", "Prefer least", `Choose the cluster that has “${row.name}” least`)));
  }

  function bar(row) {
    const title = `${row.says} Chance that an image of this cluster has it more surely than another: ${row.auroc.toFixed(2)}.`;
    const box = make("div", { class: "chosen-bar", title, role: "img", "aria-label": title });
    const part = (share, kind) => make("span", { class: `chosen-bar-${kind}`, style: `width:${(100 * share).toFixed(1)}%` });
    if (row.share_in == null) box.append(part(Math.max(0, 2 * row.auroc - 1), "in"));
    else box.append(part(row.share_in, "in"), part(row.share_out, "out"));
    return make("div", { class: "chosen-bars" }, box, make("small", {}, row.text));
  }

  function answer(row) {
    const box = make("select", { "data-key": `answer${row.column}`, disabled: !model.get("can_answer"),
      title: `${row.why}. Choose another to correct it; kept with the run`, "aria-label": `What “${row.name}” is` },
    ...Object.entries(ANSWERS).map(([value, meaning]) =>
      make("option", { value, selected: row.answer === value, title: meaning }, value)));
    box.addEventListener("change", () => tell("answer", { column: row.column, answer: box.value }));
    return make("div", {}, box, make("small", {}, row.why));
  }

  function faces(indices) {
    return make("div", { class: "chosen-few" }, ...indices.map((index) => {
      const text = model.get("labels")[index] ?? `image ${index}`;
      const button = make("button", { class: "chosen-face", title: `${text}: show it in the map and the gallery` },
        imageElement(model.get("thumbnails"), index, text));
      button.addEventListener("click", () => tell("look", { index }));
      return button;
    }));
  }

  function act(row, action, label, title) {
    const button = make("button", { class: "chosen-act", "data-key": `${action}${row.column}`, title,
      disabled: !model.get("can_choose") }, label);
    button.addEventListener("click", () => tell(action, { column: row.column }));
    return button;
  }

  function strip(data) {
    return make("figure", { class: "chosen-heat" }, make("figcaption", {}, make("strong", {}, data.title), " " + data.note),
      make("div", {}, ...data.images.map((each) => {
        const url = URL.createObjectURL(new Blob([each.data], { type: "image/webp" }));
        urls.push(url);
        return make("img", { src: url, alt: each.text, title: each.text });
      })));
  }

  keepKeys(root, () => false);
  model.on("change:rows change:words change:strips change:lit change:thumbnails change:labels change:can_choose change:can_answer",
    coalesce(build));
  signal?.addEventListener("abort", () => urls.forEach((url) => URL.revokeObjectURL(url)));
  build();
}
export default { render };
