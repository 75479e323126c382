export default {
  async initialize({ model }) {
    const slot = plotly();
    if (slot.loaded) return;
    slot.loaded = true;
    const url = URL.createObjectURL(new Blob([model.get("source")], { type: "text/javascript" }));
    slot.resolve(await import(url));
    URL.revokeObjectURL(url);
  },
  render() {},
};
