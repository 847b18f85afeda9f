// What all plots share: the colors of the page, the fonts and the axes.

export const touch = matchMedia("(pointer: coarse)").matches;
export const webgl = hasWebGL();

const CONFIG = {
  responsive: true,
  displaylogo: false,
  modeBarButtons: [["toImage"]],
  doubleClick: "reset",
};

function hasWebGL() {
  try {
    return Boolean(document.createElement("canvas").getContext("webgl"));
  } catch {
    return false;
  }
}

// Draw a plot, or change the one that is there.
export const drawPlot = (id, traces, layout) =>
  Plotly.react(id, traces, plotLayout(layout), CONFIG);

// The value of a color of page.css, in the light or the dark scheme.
export const color = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function plotLayout(more) {
  const clear = "rgba(0,0,0,0)";
  const ink = color("--ink");
  return {
    paper_bgcolor: clear,
    plot_bgcolor: clear,
    showlegend: false,
    uirevision: "keep",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
    hoverlabel: {
      bgcolor: color("--card"),
      bordercolor: color("--soft"),
      align: "left",
      font: { color: ink, size: touch ? 11 : 12 },
    },
    modebar: { bgcolor: clear, color: color("--soft"), activecolor: ink },
    ...more,
  };
}

export function plotAxis(label, more) {
  return {
    title: { text: label, standoff: 10 },
    gridcolor: color("--grid"),
    linecolor: color("--soft"),
    ticks: "outside",
    ticklen: 4,
    tickcolor: color("--soft"),
    zeroline: false,
    nticks: 6,
    ...more,
  };
}
