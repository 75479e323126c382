export default {
  initialize({ model }) {
    PLOTLY.resolve(model.get("source"));
    PLOTLY.sent = true;
  },
  render() {},
};
