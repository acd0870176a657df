// The small charts: the last ten minutes, drawn as SVG. The pointer, or the arrow keys on a focused chart,
// choose a moment; all charts then show what was at that moment.
import {el, setAttribute, setText, svg} from "./dom.js";
import {DASH, byteRate, bytes, countRate, latency, percent, plural, span} from "./format.js";
import {HISTORY_SECONDS} from "./model.js";

const WIDTH = 600; // of the drawing's own coordinates: one unit a second
const HEIGHT = 100;

// What a scale shows at least.
const lowest = {bytes: 1024 * 1024, latency: 1e-5};

const SPECIFICATIONS = [
  {id: "reads", title: "Reads", scale: "bytes", lines: ["readBytes"],
   show: (p) => [byteRate(p.readBytes), countRate(p.reads)]},
  {id: "writes", title: "Writes", scale: "bytes", lines: ["writeBytes"],
   show: (p) => [byteRate(p.writeBytes), countRate(p.writes)]},
  {id: "get", title: "Get latency", scale: "latency", lines: ["getP50", "getP99"],
   show: (p, last) => [latency(p.getP99, last), latency(p.getP50, last)], names: ["p99", "p50"]},
  {id: "put", title: "Put latency", scale: "latency", lines: ["putP50", "putP99"],
   show: (p, last) => [latency(p.putP99, last), latency(p.putP50, last)], names: ["p99", "p50"]},
  {id: "hits", title: "Hit ratio", scale: "share", lines: ["hits"],
   show: (p) => [percent(p.hits), countRate(p.misses, "miss/s")]},
  {id: "space", title: "Space used", scale: "share", lines: ["used"],
   show: (p) => [percent(p.used), p.usableBytes ? `of ${bytes(p.usableBytes)}` : ""]},
  {id: "evictions", title: "Evictions", scale: "bytes", lines: ["evictedBytes"],
   show: (p) => [byteRate(p.evictedBytes), countRate(p.evicted, "block/s")]},
  {id: "pool", title: "Pool used", scale: "share", lines: ["pool"],
   show: (p) => [percent(p.pool), p.waiting ? `${plural(p.waiting, "request")} waiting` : bytes(p.poolBytes)]},
];

/** "100 µs" of "100.0 µs". */
const brief = (figure) => figure.replace(/\.0+ /, " ");

/** The end of a scale that begins at zero: a power of two, or three quarters of one. */
function niceBytes(most) {
  let end = lowest.bytes;
  while (end < most)
    end *= 2;
  return end > lowest.bytes && most <= end * 0.75 ? end * 0.75 : end;
}

export class Charts {
  #charts = [];
  #points = [];
  #now = 0;
  #lastBound = null;
  #chosenAt = null; // a moment of the page's clock

  constructor(parent) {
    for (const specification of SPECIFICATIONS)
      this.#charts.push(this.#make(specification));
    parent.append(...this.#charts.map((chart) => chart.figure));
  }

  /** Draws everything anew. `limits`: marks on the chart of space, as shares. */
  show(points, now, bounds, limits) {
    this.#points = points;
    this.#now = now;
    this.#lastBound = bounds.at(-1) ?? null;
    for (const chart of this.#charts) {
      this.#draw(chart, chart.id === "space" ? limits : []);
      this.#read(chart);
    }
  }

  #make(specification) {
    const title = el("h3", "", specification.title);
    const value = el("b", "", DASH);
    const second = el("span");
    const [first, other] = specification.names ?? ["", ""];
    const when = el("span", "when");
    const area = svg("path", {class: "area"});
    const marks = svg("path", {class: "marks"});
    const grid = svg("path", {class: "grid"});
    const restarts = svg("path", {class: "restarts"});
    const paths = specification.lines.map((name, index) => svg("path", {class: `line l${index}`}));
    const cursor = svg("path", {class: "cursor"});
    const drawing = svg("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true"},
                        grid, marks, restarts, area, ...paths, cursor);
    const labels = el("div", "labels");
    labels.setAttribute("aria-hidden", "true");
    const plot = el("div", "plot", drawing, labels);
    const caption = el("figcaption", "", title, when);
    const figures = el("p", "figures", el("span", "value", el("small", "", first), value),
                       el("span", "second", el("small", "", other), second));
    const axis = el("p", "axis", el("span", "", "10 min ago"), el("span", "", "now"));
    axis.setAttribute("aria-hidden", "true");
    const figure = el("figure", "chart card", caption, figures, plot, axis);
    figure.id = `chart-${specification.id}`;
    figure.tabIndex = 0;
    const chart = {...specification, figure, value, second, when, area, marks, grid, restarts, paths, cursor, labels};
    plot.addEventListener("pointermove", (event) => {
      const box = plot.getBoundingClientRect();
      this.#choose(this.#now - HISTORY_SECONDS * (1 - (event.clientX - box.left) / box.width));
    });
    plot.addEventListener("pointerleave", () => this.#choose(null));
    figure.addEventListener("blur", () => this.#choose(null));
    figure.addEventListener("keydown", (event) => this.#key(event));
    return chart;
  }

  #key(event) {
    const steps = {ArrowLeft: -10, ArrowRight: 10, PageUp: -60, PageDown: 60};
    if (event.key in steps) {
      const at = (this.#chosenAt ?? this.#now) + steps[event.key];
      this.#choose(at >= this.#now ? null : Math.max(at, this.#now - HISTORY_SECONDS));
    } else if (event.key === "Escape") {
      this.#choose(null);
    } else {
      return;
    }
    event.preventDefault();
  }

  #choose(at) {
    this.#chosenAt = at;
    for (const chart of this.#charts)
      this.#read(chart);
  }

  /** The point at the chosen moment, else the last one. */
  #point() {
    if (this.#chosenAt === null)
      return this.#points.at(-1) ?? {gap: true};
    const distance = (point) => Math.abs(point.at - this.#chosenAt);
    return this.#points.reduce((best, point) => (distance(point) < distance(best) ? point : best),
                               {gap: true, at: this.#chosenAt - 6});
  }

  #read(chart) {
    const point = this.#point();
    const shown = point.gap ? [DASH, ""] : chart.show(point, this.#lastBound);
    setText(chart.value, shown[0]);
    setText(chart.second, shown[1]);
    setText(chart.when, this.#chosenAt === null ? "" : `${span(this.#now - this.#chosenAt)} ago`);
    setAttribute(chart.cursor, "d",
                 this.#chosenAt === null ? "" : `M${this.#x(this.#chosenAt)} 0V${HEIGHT}`);
    const [first, second] = chart.names ? chart.names.map((name) => `${name} `) : ["", ""];
    setAttribute(chart.figure, "aria-label",
                 `${chart.title}: ${first}${shown[0]}${shown[1] ? `, ${second}${shown[1]}` : ""}`);
  }

  #x(at) {
    return Math.round((WIDTH - (this.#now - at)) * 10) / 10;
  }

  #scale(chart) {
    let most = 0;
    let least = Infinity;
    for (const point of this.#points) {
      for (const name of chart.lines) {
        const value = point[name];
        if (typeof value === "number" && Number.isFinite(value)) {
          most = Math.max(most, value);
          if (value > 0)
            least = Math.min(least, value);
        }
      }
    }
    if (chart.scale === "share")
      return {y: (value) => HEIGHT * (1 - Math.min(value, 1)), ticks: [[1, "100 %"], [0.5, ""]]};
    if (chart.scale === "bytes") {
      const end = niceBytes(most);
      return {y: (value) => HEIGHT * (1 - value / end), ticks: [[end, brief(byteRate(end))], [end / 2, ""]]};
    }
    // Latencies: whole decades.
    const low = Math.floor(Math.log10(Math.max(least === Infinity ? 1e-4 : least * 0.7, lowest.latency)) + 1e-9);
    const high = Math.max(low + 2, Math.ceil(Math.log10(Math.max(most, lowest.latency)) - 1e-9));
    const ticks = [];
    for (let decade = high; decade > low; --decade)
      ticks.push([10 ** decade, brief(latency(10 ** decade))]);
    const y = (value) => {
      const place = value === Infinity ? high : Math.log10(Math.max(value, 10 ** low));
      return HEIGHT * (1 - (Math.min(place, high) - low) / (high - low));
    };
    return {y, ticks};
  }

  #draw(chart, limits) {
    const {y, ticks} = this.#scale(chart);
    const tenth = (value) => Math.round(value * 10) / 10;
    chart.paths.forEach((line, index) => {
      let path = "";
      let area = "";
      let previous = null; // x of the last point of a piece
      const end = () => {
        if (previous !== null)
          area += `L${previous} ${HEIGHT}Z`;
        previous = null;
      };
      for (const point of this.#points) {
        const value = point.gap ? null : point[chart.lines[index]];
        if (value === null || value === undefined) {
          end();
          continue;
        }
        const x = this.#x(point.at);
        const spot = `${x} ${tenth(y(value))}`;
        if (previous === null)
          area += `M${x} ${HEIGHT}L${spot}`;
        else
          area += `L${spot}`;
        path += `${previous === null ? "M" : "L"}${spot}`;
        if (previous === null)
          path += "h.1"; // a single point shows too
        previous = x;
      }
      end();
      line.setAttribute("d", path);
      if (index === 0)
        chart.area.setAttribute("d", area);
    });
    setAttribute(chart.grid, "d", ticks.map(([value]) => `M0 ${tenth(y(value))}H${WIDTH}`).join(""));
    setAttribute(chart.marks, "d", limits.map((value) => `M0 ${tenth(y(value))}H${WIDTH}`).join(""));
    setAttribute(chart.restarts, "d", this.#points.filter((point) => point.restarted)
      .map((point) => `M${this.#x(point.at)} 0V${HEIGHT}`).join(""));
    const wanted = ticks.map(([value, text]) => `${tenth(y(value))} ${text}`).join("\n");
    if (chart.labels.shown !== wanted) {
      chart.labels.shown = wanted;
      chart.labels.replaceChildren(...ticks.filter(([, text]) => text !== "").map(([value, text]) => {
        const label = el("span", "", text);
        label.style.top = `${y(value)}%`;
        return label;
      }));
    }
  }
}
