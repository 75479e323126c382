// A Plotly figure that asks the kernel for its present state before it is drawn. Without this the first drawing shows
// what the figure held when it was made: what was sent since then is only read after that drawing.
// Nothing slow may happen in `initialize`: anywidget gives it two seconds, then the model is deaf for good.
const PATIENCE = 20000; // ms to wait for a kernel that does not answer; then what is there is drawn

export default () => {
  let lasting; // the model as it outlives any one view
  let figure;

  function fresh(model) {
    return new Promise((done) => {
      model.on("msg:custom", (message) => message.fresh && done());
      model.send({ want: "fresh" });
      setTimeout(done, PATIENCE);
    });
  }

  async function ready() {
    if (!plotly().loaded) lasting.send({ want: "plotly" }); // five megabytes, only where a page has none yet
    const module = await plotly().promise;
    if (!figure) {
      figure = module.default();
      figure.initialize({ model: lasting });
    }
  }

  return {
    initialize({ model }) {
      lasting = model;
    },
    async render({ model, el, signal }) {
      await ready();
      await fresh(model);
      if (signal?.aborted) return undefined;
      const stop = figure.render({ model, el });
      const watcher = new ResizeObserver(() => el._responsiveChartHandler?.());
      watcher.observe(el);
      return () => {
        watcher.disconnect();
        stop?.();
      };
    },
  };
};
