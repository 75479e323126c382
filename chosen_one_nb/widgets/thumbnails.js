export default {
  initialize({ model }) {
    const data = model.get("data");
    model.get("indices").forEach((index, at) => addImage(model.get("key"), index, data[at]));
    announceArrival();
  },
  render() {},
};
