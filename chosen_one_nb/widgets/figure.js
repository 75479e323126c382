// A Plotly figure that asks the kernel for its present state before it is drawn. Without this the first drawing shows
// what the figure held when it was made, because what was sent since then is only read after that drawing.
const PATIENCE = 20000; // ms to wait for a kernel that does not answer; then what is there is drawn

export default () => {
  let figure;

  function isFresh(model) {
    return new Promise((done) => {
      const hear = (message) => message.fresh && done();
      model.on("msg:custom", hear);
      model.send({ want: "fresh" });
      setTimeout(done, PATIENCE);
    });
  }

  return {
    async initialize({ model }) {
      const module = await plotly().promise;
      figure = module.default();
      figure.initialize({ model });
    },
    async render({ model, el, signal }) {
      await isFresh(model);
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
