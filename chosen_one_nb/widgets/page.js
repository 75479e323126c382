// What the views of a page share. Plotly's text travels in one model, every figure takes the module from here. It is read
// when the first figure is drawn, not when it arrives: then the other models are still being set up.
const PLOTLY = (globalThis.chosenOnePlotly ??= (() => {
  const { promise, resolve } = Promise.withResolvers();
  return { source: promise, resolve, sent: false, module: null };
})());

// Images travel once, as thumbnails, and every view on the page takes them from here by "key/index".
const IMAGES = (globalThis.chosenOneImages ??= { urls: new Map(), arrivals: new EventTarget() });

function addImage(key, index, bytes) {
  const name = `${key}/${index}`;
  if (IMAGES.urls.has(name)) return;
  IMAGES.urls.set(name, URL.createObjectURL(new Blob([bytes], { type: "image/webp" })));
}

function announceArrival() {
  IMAGES.arrivals.dispatchEvent(new Event("arrived"));
}

function imageElement(key, index, alt) {
  const image = document.createElement("img");
  image.alt = alt;
  image.draggable = false;
  image.dataset.image = `${key}/${index}`;
  setSource(image);
  return image;
}

function setSource(image) {
  const url = IMAGES.urls.get(image.dataset.image);
  if (url) image.src = url;
}

// Fill in, as they arrive, the images that were not there when a view was drawn.
function fillOnArrival(root, signal) {
  const fill = () => root.querySelectorAll("img[data-image]:not([src])").forEach(setSource);
  IMAGES.arrivals.addEventListener("arrived", fill, { signal });
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

// Lab's own shortcuts must not hear what is typed into a focused view.
function keepKeys(root, handle) {
  root.setAttribute("data-lm-suppress-shortcuts", "true");
  root.addEventListener("keydown", (event) => {
    if (handle(event)) event.preventDefault();
    event.stopPropagation();
  });
}

// A "?" that opens the popover marked data-about with the same word; hints.js does it, for each display its own.
function helpButton(about, tip) {
  return make("button", { class: "chosen-help", "data-help": about, title: tip, "aria-label": tip }, "?");
}

function signOf(sign, colour) {
  return make("span", { class: "chosen-sign", style: `color:${colour}`, "aria-hidden": "true" }, sign);
}

// Call `draw` once after a burst of changes.
function coalesce(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    queueMicrotask(() => { waiting = false; draw(); });
  };
}
