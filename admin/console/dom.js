// Small means to build and change the page. Data reaches the page through textContent alone.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function el(tag, className = "", ...children) {
  const made = document.createElement(tag);
  if (className)
    made.className = className;
  made.append(...children);
  return made;
}

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes))
    made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** A sign of a state; the word beside it says the same. */
export function icon(name) {
  return svg("svg", {class: `icon ${name}`, "aria-hidden": "true"}, svg("use", {href: `#i-${name}`}));
}

/** Changes only what is different, so that a selection or a screen reader is not disturbed. */
export function setText(element, value) {
  if (element.textContent !== value)
    element.textContent = value;
}

export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value)
    element.setAttribute(name, value);
}

/** One child of `parent` for each item, in their order; a child is kept as long as its key is. */
export function children(parent, items, keyOf, make, update) {
  const known = parent.known ??= new Map();
  const wanted = new Set(items.map(keyOf));
  for (const [key, child] of known) {
    if (!wanted.has(key)) {
      child.remove();
      known.delete(key);
    }
  }
  let next = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    let child = known.get(key);
    if (child === undefined)
      known.set(key, child = make(item));
    if (child === next)
      next = next.nextSibling;
    else
      parent.insertBefore(child, next);
    update(child, item);
  }
}

/** A bar that is `share` full. Decoration: the figure stands beside it. */
export function bar() {
  const fill = el("span", "fill");
  const made = el("span", "bar", fill);
  made.setAttribute("aria-hidden", "true");
  made.show = (share, level = "") => {
    fill.style.width = `${Math.min(1, Math.max(0, share ?? 0)) * 100}%`;
    setAttribute(made, "data-level", level);
  };
  return made;
}
