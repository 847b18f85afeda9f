// Elements of the page.

export const byId = (id) => document.getElementById(id);

export function createElement(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// Put labels under a color bar, each at its share of the length.
export function labelBar(bar, texts, shares) {
  const labels = texts.map((text, i) => {
    const label = createElement("span", {}, text);
    label.style.left = `${100 * shares[i]}%`;
    return label;
  });
  bar.lastElementChild.replaceChildren(...labels);
}
