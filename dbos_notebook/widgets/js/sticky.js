// Keeps a bar at the top of what is visible of a view. CSS alone (position: sticky) does not: outputs
// in JupyterLab are scroll containers of their own, which do not scroll.

/**
 * Move a bar down with what is visible of its view; return what stops it.
 * @param {HTMLElement} bar
 * @param {HTMLElement} root the view, which the bar does not leave
 * @returns {() => void}
 */
export function keepVisible(bar, root) {
  let moved = 0;
  let frame = 0;
  const update = () => {
    frame = 0;
    const { top, height } = bar.getBoundingClientRect();
    const natural = top - moved;
    const room = root.getBoundingClientRect().bottom - natural - height;
    const offset = height ? Math.round(Math.max(0, Math.min(visibleTop(root) - natural, room))) : 0;
    if (offset === moved) return;
    moved = offset;
    bar.style.transform = offset ? `translateY(${offset}px)` : "";
  };
  const schedule = () => {
    frame ||= requestAnimationFrame(update);
  };
  document.addEventListener("scroll", schedule, { capture: true, passive: true });
  const resized = new ResizeObserver(schedule);
  for (const node of [bar, root]) resized.observe(node);
  return () => {
    document.removeEventListener("scroll", schedule, { capture: true });
    resized.disconnect();
    cancelAnimationFrame(frame);
  };
}

/**
 * The upper edge of what is visible of an element: that of the lowest container that clips it.
 * @param {Element} element
 */
function visibleTop(element) {
  let top = 0;
  /** @type {Node | null} */
  let node = element;
  while (node) {
    node = node.parentNode ?? (node instanceof ShadowRoot ? node.host : null);
    if (node instanceof Element && getComputedStyle(node).overflowY !== "visible") {
      top = Math.max(top, node.getBoundingClientRect().top);
    }
  }
  return top;
}
