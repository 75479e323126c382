export default {
  initialize({ model }) {
    const album = model.get("album");
    const start = model.get("start");
    model.get("thumbs").forEach((bytes, offset) => addImage(album, start + offset, bytes));
    announceArrival();
  },
  render() {},
};
