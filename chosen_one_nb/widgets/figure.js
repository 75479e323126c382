// A Plotly figure, drawn anew whenever the kernel says something else. Where the pointer is goes to the kernel as a
// trait, of which only the last value counts; clicks and lassos go as messages: a slow kernel must hear each of them.
function plotly(model) {
  if (!PLOTLY.sent) model.send({ do: "send plotly" }); // five megabytes, only where a page has none yet
  return (PLOTLY.module ??= PLOTLY.source.then(async (source) => {
    const module = `const module = { exports: {} };\n${source}\nexport default module.exports;`;
    return (await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })))).default;
  }));
}

const CONFIG = {
  displaylogo: false,
  responsive: true, // without it the figure holds its column as wide as it once was
  showSendToCloud: false, // on by default in Plotly.js 4: what a run shows stays on this machine
  modeBarButtonsToRemove: ["toImage", "autoScale2d", "zoomIn2d", "zoomOut2d"],
};

export default {
  async render({ model, el, signal }) {
    const plot = make("div", { class: "chosen-plot", role: "figure", "aria-label": model.get("alt") });
    el.replaceChildren(plot);
    const Plotly = await plotly(model);
    if (signal.aborted) return undefined;

    const active = () => model.get("traces").indexOf(model.get("active"));
    let selected = model.get("selected"); // as it is here: the kernel may not have heard of a lasso yet
    let outlines = []; // of the lasso, while what it selected stays selected
    let modifier = ""; // held when the pointer went down
    let erasing = false; // Plotly answers to a vanished outline as if a person had deselected everything
    let draws = 0;
    let drawn; // where the points were drawn last, and on what ground

    function draw() {
      plot.setAttribute("aria-label", model.get("alt"));
      const data = model.get("traces").map((name) => ({ ...model.get(name) }));
      if (active() >= 0) data[active()].selectedpoints = selected.length ? selected : null;
      const layout = { ...structuredClone(model.get("chart")), selections: outlines, selectionrevision: draws++ };
      const now = { x: model.get(model.get("active"))?.x ?? [], ground: layout.uirevision };
      const same = drawn && drawn.ground === now.ground && drawn.x.length === now.x.length;
      const moved = same && String(drawn.x) !== String(now.x);
      if (!moved || matchMedia("(prefers-reduced-motion: reduce)").matches || !layout.transition?.duration) delete layout.transition; // rings do not glide, points to new places do
      drawn = now;
      return Plotly.react(plot, data, layout, CONFIG).then(() => { erasing = false; });
    }

    const pointed = (event) => (event?.points ?? [])
      .filter(({ curveNumber }) => curveNumber === active()).map(({ pointIndex }) => pointIndex);

    function select(event) {
      const indices = pointed(event).sort((a, b) => a - b);
      // With an outline of its own Plotly has combined the two already when a key is held.
      const how = !event ? "" : modifier ? (outlines.length ? "" : modifier) : model.get("lasso_mode");
      if ((!how && String(indices) === String(selected)) || (erasing && !indices.length)) return;
      modifier = "";
      [selected, outlines] = [indices, plot.layout.selections ?? []];
      model.send({ do: "select", indices, how });
    }

    function obey() {
      if (String(model.get("selected")) === String(selected)) return;
      erasing = outlines.length > 0;
      [selected, outlines] = [model.get("selected"), []];
    }

    await draw();
    model.on("change:selected", obey);
    const traits = [...model.get("traces"), "chart", "selected", "alt"];
    model.on(traits.map((name) => `change:${name}`).join(" "), coalesce(draw));
    plot.addEventListener("pointerdown", ({ shiftKey, altKey }) => {
      modifier = shiftKey ? "add" : altKey ? "remove" : "";
    }, { capture: true, signal });
    plot.on("plotly_hover", (event) => {
      if (!pointed(event).length) return;
      model.set("hovered", pointed(event)[0]);
      model.save_changes();
    });
    plot.on("plotly_click", (event) => pointed(event).slice(0, 1).forEach((index) => model.send({ do: "click", index })));
    plot.on("plotly_selected", select);
    plot.on("plotly_deselect", select);
    const watcher = new ResizeObserver(() => el.clientHeight && Plotly.Plots.resize(plot)); // not while it is off the page
    watcher.observe(el);
    return () => {
      watcher.disconnect();
      Plotly.purge(plot);
    };
  },
};
