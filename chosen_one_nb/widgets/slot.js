// Plotly, once per page: its text travels in this one model and every figure takes the module from here. It is read
// when the first figure is drawn, not when it arrives: then the other models are still being set up.
function plotly() {
  if (!globalThis.chosenOnePlotly) {
    let give;
    const text = new Promise((done) => (give = done));
    globalThis.chosenOnePlotly = { text, give, loaded: false, module: null };
  }
  return globalThis.chosenOnePlotly;
}

function plotlyModule() {
  const slot = plotly();
  slot.module ??= slot.text.then((text) => import(URL.createObjectURL(new Blob([text], { type: "text/javascript" }))));
  return slot.module;
}
