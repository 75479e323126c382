// The clusters as cards, most cohesive first.
const FACTS = ["cohesion", "picked", "chance"]; // on the line of a card; all, with what they mean, stand in its "?"
const MEANING = {
  cohesion: "mean distance of the members to their centroid, squared by default; smaller is tighter; ± half of the 95 % " +
    "bootstrap interval over members",
  corrected: "cohesion times n/(n−1): the centroid is fitted to its own members, which flatters small clusters",
  picked: "how often the rule picks this cluster when random subsets of the gallery are clustered anew",
  silhouette: "how much nearer the members are to their own cluster than to the next, −1 to 1",
  chance: "share of random groups of the same size that are at least as tight (p of the null)",
};

function render({ model, el, signal }) {
  const root = make("div", { class: "chosen-cards", role: "list", "aria-label": "Clusters, most cohesive first" });
  el.replaceChildren(root);
  fillOnArrival(el, signal);
  const tell = (action, more = {}) => model.send({ do: action, ...more });
  const underWay = new Map(); // cluster -> ticked or not, until the kernel has said the same
  const isTicked = (cluster) => underWay.get(cluster) ?? model.get("ticked").includes(cluster);

  function build() {
    const focused = root.querySelector(":focus")?.dataset.key;
    const cards = model.get("cards").map(card);
    root.replaceChildren(...(cards.length ? cards : [make("p", { class: "chosen-empty" }, model.get("empty"))]));
    if (focused) root.querySelector(`[data-key="${focused}"]`)?.focus();
  }

  function card(data) {
    const box = make("article", { class: `chosen-card${data.chosen ? " is-chosen" : ""}${data.kept ? "" : " is-dropped"}`,
      role: "listitem", "data-cluster": data.cluster, style: `--swatch:${data.colour}`, "aria-label": data.title },
    head(data), images(data), facts(data),
    data.shares ? make("p", { class: "chosen-shares", title: data.shares_tip ?? "" }, data.shares) : null,
    data.warning ? make("p", { class: "chosen-warning" }, "⚠ " + data.warning) : null);
    box.addEventListener("pointerenter", () => point({ hovered: data.cluster }));
    box.addEventListener("pointerleave", () => point({ hovered: -1 }));
    return box;
  }

  function head(data) {
    const choose = make("button", { class: "chosen-choose", "data-key": `choose${data.cluster}`,
      disabled: !model.get("can_choose"), title: `Refine on the ${data.size} images of cluster ${data.cluster}` },
    data.chosen ? "★ Chosen" : "Choose");
    choose.addEventListener("click", () => tell("choose", { cluster: data.cluster }));
    return make("header", {}, signOf(data.sign, data.colour), make("strong", {}, data.title),
      make("span", { class: "chosen-size" }, `n = ${data.size}`),
      data.proposed ? make("span", { class: "chosen-badge", title: "What the paper's rule takes" }, "☆", make("span", {}, " proposed")) : null,
      data.kept ? null : make("span", { class: "chosen-badge is-faint", title: data.dropped_tip }, "dropped"),
      make("span", { class: "chosen-space" }), tickbox(data), choose);
  }

  function tickbox(data) {
    const box = make("input", { type: "checkbox", "data-key": `tick${data.cluster}`,
      "aria-label": `Tick cluster ${data.cluster} for merging` });
    box.checked = isTicked(data.cluster);
    box.addEventListener("change", () => {
      underWay.set(data.cluster, box.checked);
      tell("tick", { cluster: data.cluster, on: box.checked }); // a message: it cannot be overtaken by a later click
    });
    return make("label", { class: "chosen-tick", title: "Tick two or more clusters, then press Merge" }, box, "merge");
  }

  function images(data) {
    const strip = (indices, caption, title) => indices.length
      ? make("figure", { class: "chosen-strip", title: `${caption}: ${title}` }, make("div", {}, ...indices.map((index) => face(index))))
      : null;
    return make("div", { class: "chosen-faces" },
      strip([data.medoid], "medoid", "The image nearest to the centroid"),
      strip(data.typical, "most typical", "Next nearest to the centroid"),
      strip(data.odd, "oddest", "Farthest from the centroid: the first to leave out"));
  }

  function face(index) {
    const text = model.get("labels")[index] ?? `image ${index}`;
    const out = model.get("excluded").includes(index);
    const button = make("button", { class: `chosen-face${out ? " is-excluded" : ""}`, "data-key": `face${index}`,
      title: `${text}${out ? ", left out" : ""}: show it in the map and the gallery` },
    imageElement(model.get("thumbnails"), index, text));
    button.addEventListener("pointerenter", () => point({ pointed: index }));
    button.addEventListener("click", () => tell("look", { index }));
    return button;
  }

  function facts(data) {
    const all = Object.entries(data.facts);
    const more = make("div", { popover: "auto", "data-about": `card${data.cluster}` }, make("strong", {}, data.title),
      data.reason ? make("p", {}, data.reason) : null, ...all.map(([name, value]) => make("p", {}, make("strong", {}, `${name} ${value}`), ` ${MEANING[name]}`)));
    const line = all.filter(([name]) => FACTS.includes(name)).map(fact);
    return make("div", { class: "chosen-facts" }, ...line, helpButton(`card${data.cluster}`, `All figures of ${data.title}`), more);
  }

  function fact([name, value]) {
    return make("span", {}, make("small", {}, name), make("span", {}, value));
  }

  function point(changes) {
    for (const [trait, value] of Object.entries(changes)) model.set(trait, value);
    model.save_changes();
  }

  keepKeys(root, () => false);
  model.on("change:cards change:thumbnails change:labels change:can_choose change:excluded change:empty", coalesce(build));
  model.on("change:ticked", () => {
    for (const [cluster, on] of underWay) if (model.get("ticked").includes(cluster) === on) underWay.delete(cluster);
    root.querySelectorAll(".chosen-tick input").forEach((box) => {
      box.checked = isTicked(Number(box.closest("article").dataset.cluster));
    });
  });
  build();
}
export default { render };
