// A page may hold several views of a screen; the model is one, so each file comes once.
export default {
  initialize({ model }) {
    model.on("msg:custom", ({ name, type }, [data]) => {
      const url = URL.createObjectURL(new Blob([data], { type }));
      const link = make("a", { href: url, download: name });
      document.body.append(link);
      link.click();
      link.remove();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    });
  },
  render() {},
};
