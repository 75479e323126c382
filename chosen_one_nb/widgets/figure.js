// A Plotly figure that is never stale. It is drawn at once, from what the kernel copied when the screen was shown; then
// the kernel is asked whether anything has changed since, and if so it is drawn again: what a kernel sends before the
// first drawing would otherwise never be seen. The answer may take long, for a kernel that runs a cell reads nothing.
// Nothing slow may happen in `initialize`: anywidget gives it two seconds, then the model is deaf for good.

// Clicks and lassos go to the kernel as messages, one after the other. Plotly writes them into a trait, as it does where
// the pointer is: while one write is unanswered the next waits, and a third takes its place. That is right for a pointer
// that moves on, but a slow kernel would never hear of the click.
function outspoken(model) {
  const isPointing = ({ event_type }) => event_type.endsWith("hover");
  const set = (trait, value) => trait === "_js2py_pointsCallback" && !isPointing(value)
    ? model.send({ points: value }) : model.set(trait, value);
  const bound = (value) => (typeof value === "function" ? value.bind(model) : value);
  return new Proxy(model, { get: (_, name) => (name === "set" ? set : bound(model[name])) });
}

export default () => {
  let lasting; // the model as it outlives any one view
  let figure;

  async function ready() {
    if (!plotly().loaded) lasting.send({ want: "plotly" }); // five megabytes, only where a page has none yet
    const module = await plotlyModule();
    if (!figure) {
      figure = module.default();
      figure.initialize({ model: outspoken(lasting) });
    }
  }

  return {
    initialize({ model }) {
      lasting = model;
    },
    async render({ model, el, signal }) {
      const name = () => el.setAttribute("aria-label", model.get("alt"));
      el.setAttribute("role", "figure");
      name();
      model.on("change:alt", name);
      await ready();
      if (signal?.aborted) return undefined;
      let stop = figure.render({ model, el });

      function answered(message) {
        if (!message.fresh) return;
        model.off("msg:custom", answered);
        if (!message.changed || signal?.aborted) return;
        stop?.();
        el.replaceChildren();
        stop = figure.render({ model, el });
      }

      model.on("msg:custom", answered);
      model.send({ want: "fresh" });
      const watcher = new ResizeObserver(() => el._responsiveChartHandler?.());
      watcher.observe(el);
      return () => {
        model.off("change:alt", name);
        watcher.disconnect();
        stop?.();
      };
    },
  };
};
