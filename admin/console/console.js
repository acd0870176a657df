// Asks the server how it is, again and again, and shows what it says.
import {Charts} from "./charts.js";
import {byId, children, el, icon, setAttribute, setText} from "./dom.js";
import {list, number, object, span, text} from "./format.js";
import {Model} from "./model.js";
import {showActors, showCards, showDrives, showLatencies} from "./tables.js";
import {findings, judge} from "./verdict.js";

const EVERY_MS = 2000;
const PATIENCE_MS = 5000; // with one answer
const LONGEST_PAUSE_MS = 10000;

const now = () => performance.now() / 1000;
const model = new Model();
const charts = new Charts(byId("charts"));
// state: "asking" (nothing came yet), "ok", "partial" (an answer that lacks something), "lost".
const link = {state: "asking", reason: "", silent: [], error: "", askedAt: now(), failures: 0, nextAt: null, answers: false};
let timer = null;
let asking = null; // the request under way
let spoken = "";

function lose(reason, answers = false) {
  ++link.failures;
  link.answers = answers;
  link.state = "lost";
  link.reason = reason;
  link.silent = [];
}

async function ask() {
  clearTimeout(timer);
  timer = null;
  link.nextAt = null;
  const request = asking = new AbortController();
  const patience = setTimeout(() => request.abort(), PATIENCE_MS);
  let pause = EVERY_MS;
  try {
    const response = await fetch("v1/status", {cache: "no-store", credentials: "same-origin", signal: request.signal});
    let body = null;
    try {
      body = JSON.parse(await response.text());
    } catch (error) {
      if (error.name === "AbortError")
        throw error;
    }
    if (asking !== request)
      return;
    const error = text(object(body).error);
    if (Model.isDocument(body)) {
      link.state = response.ok ? "ok" : "partial";
      link.failures = 0;
      link.reason = "";
      link.error = error;
      link.silent = list(body.silent).map((name) => text(name, 60)).filter(Boolean).slice(0, 100);
      model.take(body, now());
      pause = link.silent.length > 0 ? 2 * EVERY_MS : EVERY_MS; // such an answer costs the server a deadline
    } else {
      const said = error !== "" ? `: ${error}` : ", not with its status.";
      lose(`It answered ${response.status}${said}`, true);
    }
  } catch {
    if (asking !== request)
      return;
    lose(request.signal.aborted ? `It was given ${PATIENCE_MS / 1000} s to answer.`
      : "The connection failed: the server is stopped, or cut off from here.");
  } finally {
    clearTimeout(patience);
  }
  asking = null;
  if (link.state === "lost")
    pause = Math.min(EVERY_MS * 2 ** (link.failures - 1), LONGEST_PAUSE_MS);
  if (!document.hidden) {
    link.nextAt = now() + pause / 1000;
    timer = setTimeout(ask, pause);
  }
  show();
}

const favicons = {ok: "#2f7d4f", warn: "#b7791f", bad: "#c0392b", busy: "#5b6673", note: "#5b6673"};
function showInTab(verdict) {
  const address = text(object(model.document).address, 80) || location.host;
  document.title = `${verdict.level === "ok" ? "" : `${verdict.spoken ? (link.answers ? "No status" : "No answer") : verdict.headline} · `}${address} · memkv`;
  const shape = {ok: "<circle cx='8' cy='8' r='7'/>", warn: "<path d='M8 1L15.5 15H.5Z'/>"}[verdict.level]
    ?? "<path d='M5 1h6l4 4v6l-4 4H5l-4-4V5Z'/>";
  const picture = `<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='${favicons[verdict.level]}'>${shape}</svg>`;
  setAttribute(byId("favicon"), "href", `data:image/svg+xml,${encodeURIComponent(picture)}`);
}

/** What changes from second to second, whether an answer came or not. */
function showVerdict() {
  const verdict = judge(model, link, now());
  setAttribute(byId("verdict"), "data-level", verdict.level);
  setAttribute(byId("verdict-icon"), "href", `#i-${verdict.level}`);
  setText(byId("headline"), verdict.headline);
  setText(byId("summary"), verdict.summary);
  setAttribute(document.body, "data-link", link.state);
  showInTab(verdict);
  const said = verdict.spoken ?? `${verdict.headline}. ${verdict.summary}`;
  if (said !== spoken) {
    spoken = said;
    setText(byId("announcement"), said);
  }

  let age = "asking the server";
  if (link.state === "lost")
    age = link.nextAt === null ? "asking again" : `asking again in ${Math.max(1, Math.ceil(link.nextAt - now()))} s`;
  else if (model.heardAt !== null)
    age = now() - model.heardAt < 4 ? "live" : `${span(now() - model.heardAt)} old`;
  setText(byId("age"), age);
}

function showFindings() {
  const found = model.document === null ? [] : findings(model, link.silent, link.error);
  if (model.restartedAt !== null && now() - model.restartedAt < 600)
    found.push({level: "note", text: `The server was started again ${span(now() - model.restartedAt)} ago, while this page was open.`});
  const most = 8;
  const shown = found.slice(0, most);
  if (found.length > most)
    shown.push({level: "note", text: `and ${found.length - most} more`});
  children(byId("findings"), shown.map((each, index) => ({...each, index})), (each) => `${each.index} ${each.level}`,
           (each) => el("li", "text", icon(each.level), el("span", "unseen", `${{bad: "Failure", warn: "Warning", note: "Note"}[each.level]}: `),
                        el("span")),
           (item, each) => setText(item.lastChild, each.text));
}

function show() {
  showVerdict();
  showFindings();
  const known = model.document;
  if (known === null)
    return;
  setText(byId("address"), text(known.address, 80) || location.host);
  setText(byId("phase"), number(known.uptime_seconds) === null ? "" : `up ${span(known.uptime_seconds)}`);
  setText(byId("version"), text(known.version, 60));
  const eviction = object(known.eviction);
  const limits = eviction.enabled === true
    ? [eviction.high_watermark, eviction.low_watermark].filter((each) => number(each) !== null) : [];
  charts.show(model.points, now(), model.bounds, limits);
  showDrives(model, link.silent);
  showLatencies(model);
  showActors(model, link.silent);
  showCards(model);
  setAttribute(byId("data"), "data-stale", link.state === "lost" ? "yes" : "no");
}

// The theme: the system's, unless the reader chose.
const THEMES = ["system", "light", "dark"];
function theme(chosen) {
  document.documentElement.dataset.theme = chosen;
  setText(byId("theme"), `Theme: ${chosen}`);
}
function storedTheme() {
  try {
    return THEMES.find((each) => each === localStorage.getItem("memkv-theme")) ?? "system";
  } catch {
    return "system"; // storage is forbidden here
  }
}
byId("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  theme(next);
  try {
    localStorage.setItem("memkv-theme", next);
  } catch {
    // It lasts until the page is left.
  }
});
theme(storedTheme());

document.addEventListener("visibilitychange", () => {
  if (document.hidden) { // nobody looks: leave the server alone
    clearTimeout(timer);
    asking?.abort();
    asking = null;
  } else if (asking === null) {
    ask();
  }
});
function tick() {
  if (!document.hidden)
    showVerdict();
  setTimeout(tick, 1000);
}
setTimeout(tick, 1000);
ask();
