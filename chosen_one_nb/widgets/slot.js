// Plotly, once per page: its text travels in this one model and every figure takes the module from here.
function plotly() {
  if (!globalThis.chosenOnePlotly) {
    let resolve;
    const promise = new Promise((done) => (resolve = done));
    globalThis.chosenOnePlotly = { promise, resolve, loaded: false };
  }
  return globalThis.chosenOnePlotly;
}
