// What the screen needs beyond its controls. Tooltips where ipywidgets leaves them out: a described control has one on
// its label or none, a tab has none. And the keyboard: Lab's one-letter shortcuts stay away from what has the
// focus here, and a button that was disabled while it worked gets its focus back. A "?" opens its popover. And the height:
// that of the panel of Lab which each display stands in, its own.
const PANELS = ".jp-WindowedPanel-outer, .jp-LinkedOutputView, .jp-MainAreaWidget > :last-child";
const [LOWEST, HIGHEST, FRAMED] = [420, 900, 680]; // px

function render({ model, el, signal }) {
  let watcher, sizes;
  let last; // what had the focus last

  function give(root) {
    const tips = model.get("tips");
    for (const named of root.querySelectorAll(".widget-label, .lm-TabBar-tab")) {
      const box = named.matches(".widget-label") ? named.closest(".jupyter-widgets") : named;
      const tip = tips[named.textContent.trim()];
      if (!box || !tip) continue;
      if (box.title !== tip) box.title = tip;
      box.querySelectorAll(".noUi-handle").forEach((handle) => handle.setAttribute("aria-label", named.textContent));
    }
  }

  function fit(root) {
    const panel = root.parentElement.closest(PANELS);
    const height = panel?.clientHeight;
    if (height) root.style.setProperty("--fit", `${Math.max(LOWEST, Math.min(height - 24, HIGHEST))}px`);
    // a frame as high as its content (Colab, VS Code) says nothing of the window's height
    else if (!panel && window.self !== window.top) root.style.setProperty("--fit", `${FRAMED}px`);
    return panel;
  }

  // After a choice the next step is what comes: the focus goes there once it can be pressed.
  function toNext(root, tries = 20) {
    setTimeout(() => {
      const next = root.querySelector(".chosen-next");
      if (next && !next.disabled) next.focus({ preventScroll: true });
      else if (tries && !signal?.aborted) toNext(root, tries - 1);
    }, 150); // later than the cards, which are drawn anew and keep the focus that they had
  }

  function help(root, event) {
    if (event.target.closest(".chosen-choose, .chosen-use, .chosen-proposal")) toNext(root);
    const button = event.target.closest("[data-help]");
    if (button) root.querySelector(`[data-about="${button.dataset.help}"]`)?.showPopover({ source: button });
  }

  function giveBack(root) {
    const lost = document.activeElement === document.body;
    if (lost && last && !last.disabled && root.contains(last)) last.focus({ preventScroll: true });
  }

  function begin() {
    const root = el.closest(".chosen-explorer");
    if (signal?.aborted) return;
    if (!root?.isConnected) return requestAnimationFrame(begin); // not on the page yet
    let waiting = false;
    const soon = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; give(root); giveBack(root); });
    };
    model.send({ want: "fresh", beat: model.get("beat") });
    watcher = new MutationObserver(soon);
    watcher.observe(root, { childList: true, subtree: true, attributeFilter: ["disabled"] });
    root.addEventListener("keydown", (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
    }, { signal });
    root.addEventListener("focusin", (event) => { last = event.target; }, { signal });
    root.addEventListener("focusout", (event) => { if (!event.target.disabled) last = null; }, { signal });
    root.addEventListener("click", (event) => help(root, event), { signal });
    give(root);
    sizes = new ResizeObserver(() => fit(root));
    sizes.observe(fit(root) ?? document.documentElement);
  }

  begin();
  return () => { watcher?.disconnect(); sizes?.disconnect(); };
}
export default { render };
