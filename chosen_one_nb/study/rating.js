// The screens of a study: one image or two, one question, five answers. One source for the widget in a notebook
// (render) and for the page that raters open without Python (openPage); they differ in where answers are kept.
const QUESTIONS = {
  fit: {
    words: "How well does the image fit the text?",
    levels: ["not at all", "a little", "in part", "mostly", "completely"],
  },
  same: {
    words: "Do these two images show the same character?",
    more: "Place, pose and framing may differ.",
    levels: ["certainly not", "probably not", "hard to say", "probably", "certainly"],
  },
};

function node(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value != null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

// The answers that stand, by position on the sheet: the last one that has not been withdrawn.
function standing(lines) {
  const withdrawn = new Set(lines.map((line) => line.supersedes));
  const kept = lines.filter((line) => line.rating && !withdrawn.has(line.number));
  return new Map(kept.map((line) => [line.position, line]));
}

// Ask the items of a sheet one after the other. `store` has `lines()`, `save(line)`, `source(file)` and `end(n)`, the
// last screen; the function that is returned draws anew, after the lines have changed.
function ask(root, study, order, store) {
  let chosen = null; // the answer that is picked, not yet given
  let shown = { at: 0, clock: 0 };
  let told = null; // position of the training item whose intended answer is on the screen
  let waiting = false; // for an answer to be saved

  const position = () => told ?? [...order.keys(), order.length].find((place) => !standing(store.lines()).has(place));

  function save(fields) {
    waiting = true;
    store.save({ number: store.lines().length + 1, ...fields });
  }

  function give() {
    const place = position();
    if (told !== null) {
      told = null;
      return draw();
    }
    if (!chosen || waiting) return undefined;
    if (study.items[order[place]].low) told = place;
    return save({ position: place, item: order[place], rating: chosen, ms: Math.round(performance.now() - shown.clock),
      shown_at: shown.at, supersedes: null });
  }

  function undo() {
    const place = told ?? position() - 1;
    const line = standing(store.lines()).get(place);
    told = null;
    if (!line || waiting) return undefined;
    return save({ position: place, item: order[place], rating: null, ms: 0, shown_at: "", supersedes: line.number });
  }

  function pick(rating) {
    if (told !== null || rating > 5) return;
    chosen = rating;
    root.querySelectorAll(".rating-level").forEach((button, i) => button.setAttribute("aria-pressed", i + 1 === rating));
    root.querySelector(".rating-next").disabled = false;
  }

  function draw() {
    waiting = false;
    const place = position();
    if (place === order.length) return root.replaceChildren(...store.end(order.length), back(place));
    chosen = null;
    const item = study.items[order[place]];
    const { words, more, levels } = QUESTIONS[item.question];
    const now = () => { shown = { at: new Date().toISOString(), clock: performance.now() }; };
    now();
    root.replaceChildren(
      node("p", { class: "rating-progress" }, node("progress", { max: order.length, value: place }),
        ` ${place + 1} of ${order.length}${item.low ? " · to practise" : ""}`),
      item.text ? node("blockquote", {}, item.text) : "",
      node("div", { class: "rating-images" }, ...item.files.map((file, i) =>
        node("img", { src: store.source(file), alt: `Image ${i + 1}`, draggable: "false", onload: now }))),
      node("h2", {}, words, more ? node("small", {}, ` ${more}`) : null),
      node("div", { class: "rating-levels", role: "group", "aria-label": words }, ...levels.map((level, i) =>
        node("button", { class: "rating-level", "aria-pressed": "false", disabled: told !== null, onclick: () => pick(i + 1) },
          node("kbd", {}, `${i + 1}`), ` ${level}`))),
      told === null ? "" : node("p", { class: "rating-told", role: "status" }, training(item, place)),
      node("p", { class: "rating-acts" }, back(place),
        node("button", { class: "rating-next", disabled: told === null, onclick: give }, "Next ", node("kbd", {}, "Enter"))),
      node("p", { class: "rating-hint" }, "Keys 1 to 5, Enter, Backspace. Each answer is saved at once: you may stop at any time and go on later."));
    return root.focus({ preventScroll: true });
  }

  function training({ low, high, note }, place) {
    const given = standing(store.lines()).get(place)?.rating;
    const meant = low === high ? `${low}` : `${low} to ${high}`;
    return `You answered ${given}; ${given >= low && given <= high ? "that is what we meant" : `we meant ${meant}`}. ${note}`;
  }

  function back(place) {
    return node("button", { disabled: !place, onclick: undo }, "Back ", node("kbd", {}, "Backspace"));
  }

  store.keys.addEventListener("keydown", (event) => {
    const other = event.target.matches?.("button:not(.rating-level, .rating-next)"); // which Enter presses
    if (event.ctrlKey || event.metaKey || event.altKey || (other && event.key === "Enter")) return;
    const act = { Enter: give, Backspace: undo }[event.key] ?? (/^[1-5]$/.test(event.key) ? () => pick(Number(event.key)) : null);
    event.stopPropagation(); // Lab's shortcuts must not hear it
    if (!act || event.repeat) return;
    event.preventDefault(); // Enter on a focused button would press it as well
    act();
  }, { signal: store.signal });
  return draw;
}

function thanks(...more) {
  return [node("h2", {}, "Thank you, that was all."), ...more];
}

// --- in a notebook: the kernel keeps the answers

function render({ model, el, signal }) {
  const root = node("div", { class: "rating", tabindex: "0", "data-lm-suppress-shortcuts": "true" });
  const problem = node("p", { class: "rating-problem", role: "alert" });
  el.replaceChildren(root, problem);
  const study = model.get("shown");
  const urls = new Map(Object.entries(model.get("images")).map(([file, data]) =>
    [file, URL.createObjectURL(new Blob([data], { type: "image/webp" }))]));
  signal?.addEventListener("abort", () => urls.forEach((url) => URL.revokeObjectURL(url)));
  const draw = ask(root, study, study.sheets[0], {
    keys: root, signal, lines: () => model.get("lines"), save: (line) => model.send(line),
    source: (file) => urls.get(file), end: (n) => thanks(node("p", {}, `All ${n} answers are in the study's folder.`)),
  });
  const tell = () => { problem.textContent = model.get("problem"); };
  model.on("change:lines", draw);
  model.on("change:problem", () => { tell(); draw(); });
  tell();
  draw();
}

// --- as a page: the browser keeps the answers, and gives them as a file

function openPage(main, study) {
  const place = `study ${study.study}`;
  let raters = {}; // by name: { sheet, lines }
  let problem = "";
  try {
    raters = JSON.parse(localStorage.getItem(place) ?? "{}");
  } catch {
    problem = "This browser keeps nothing. Answer in one go, and save your answers before you close the page.";
  }

  function keep() {
    try {
      localStorage.setItem(place, JSON.stringify(raters));
    } catch {
      problem = "This browser does not keep your answers. Save them before you close the page.";
    }
  }

  function welcome() {
    const alias = node("input", { required: true, pattern: study.alias, autocomplete: "off", "aria-label": "Alias",
      title: "Letters, digits, - and _" });
    const begin = (event) => {
      event.preventDefault();
      const name = `${alias.value}-${crypto.getRandomValues(new Uint16Array(1))[0].toString(16).padStart(4, "0")}`;
      const asked = Number(new URLSearchParams(location.search).get("sheet") ?? NaN); // ?sheet=3 in a link gives that one
      const sheet = study.sheets[asked] ? asked : Math.floor(Math.random() * study.sheets.length);
      raters[name] = { sheet, lines: [] };
      keep();
      rate(name);
    };
    main.replaceChildren(
      node("h1", {}, "Rating images"),
      node("p", {}, "You will see images and one question about them at a time, first a few to practise where there are any. "
        + "There is no right or wrong taste: answer as you see it."),
      node("p", {}, "Taking part is voluntary. An alias of your choice, your answers, and when and how quickly you gave them are kept in this "
        + "browser, and nothing else; they go nowhere until you send the file yourself. By beginning you agree to that."),
      node("form", { onsubmit: begin }, "Alias (not your name) ", alias, " ", node("button", {}, "Begin")),
      ...Object.keys(raters).map((name) => node("p", {}, node("button", { class: "rating-again", onclick: () => rate(name) },
        `Go on as ${name}: ${standing(raters[name].lines).size} of ${study.sheets[raters[name].sheet].length}`))),
      node("p", { class: "rating-problem", role: "alert" }, problem));
  }

  function file(name) {
    const all = { study: study.study, build: study.build, rater: name, sheet: raters[name].sheet };
    const rows = raters[name].lines.map((line) => study.columns.map((column) => ({ ...all, ...line })[column] ?? ""));
    const text = [study.columns, ...rows].map((row) => `${row.join(",")}\n`).join("");
    return URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  }

  function download(name) {
    return node("button", { class: "rating-save",
      onclick: () => node("a", { href: file(name), download: `${study.study}-${name}.csv` }).click() }, "Save my answers as a file");
  }

  function rate(name) {
    const { sheet, lines } = raters[name];
    const root = node("div", { class: "rating", tabindex: "-1" });
    const warning = node("p", { class: "rating-problem", role: "alert" }, problem);
    main.replaceChildren(root, node("p", { class: "rating-foot" }, download(name)), warning);
    const draw = ask(root, study, study.sheets[sheet], {
      keys: document, lines: () => lines, source: (image) => `images/${image}.webp`,
      save: (line) => { lines.push(line); keep(); warning.textContent = problem; draw(); },
      end: () => thanks(node("p", {}, "Save your answers with the button below, and send the file to whoever asked you.")),
    });
    draw();
  }
  welcome();
}
export default { render };
