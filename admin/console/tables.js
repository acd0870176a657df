// Drives, latencies, actors, and the cards below them.
import {bar, byId, children, el, icon, setAttribute, setText} from "./dom.js";
import {DASH, byteRate, bytes, count, countRate, latency, list, moment, number, object, percent, plural, span, text}
  from "./format.js";
import {WINDOW_SECONDS, actorsOf, drivesOf} from "./model.js";
import {ACTOR_STATES, actorState, driveState, resetProgress} from "./verdict.js";

const ratio = (part, all) => (number(part) === null || !number(all) ? null : part / all);
const fullness = (share) => (share >= 0.98 ? "high" : "");

/** A cell with a label that narrow screens show before it. */
function cell(label, className = "") {
  const made = el("td", className);
  made.setAttribute("role", "cell");
  made.dataset.label = label;
  return made;
}

function state(parent, {level, word}) {
  if (parent.shown === `${level} ${word}`)
    return;
  parent.shown = `${level} ${word}`;
  parent.replaceChildren(icon(level), el("span", "", word));
  setAttribute(parent, "data-level", level);
}

// Two figures, of which the second is the smaller print.
function two(parent, first, second) {
  if (parent.childNodes.length !== 2)
    parent.replaceChildren(el("b"), el("small"));
  setText(parent.firstChild, first);
  setText(parent.lastChild, second);
}

const DRIVE_CELLS = [["Used", "used"], ["Read", "n"], ["Written", "n"], ["Read p50 / p99", "n wide"],
                     ["Write p50 / p99", "n wide"], ["Flush p99", "n"], ["Depth", "n"], ["Errors", "n"]];

function makeDriveRow() {
  const row = el("tr");
  row.setAttribute("role", "row");
  row.parts = {state: cell("", "state"), id: el("th", "n"), media: cell("", "media")};
  row.parts.id.setAttribute("role", "rowheader");
  row.parts.id.scope = "row";
  row.parts.name = el("span", "text");
  row.parts.model = el("small", "text");
  row.parts.media.append(row.parts.name, row.parts.model);
  row.open = DRIVE_CELLS.map(([label, className]) => cell(label, className));
  row.parts.bar = bar();
  row.parts.fill = el("b");
  row.parts.size = el("small");
  row.open[0].append(row.parts.bar, row.parts.fill, row.parts.size);
  row.closed = cell("", "why text");
  row.closed.colSpan = DRIVE_CELLS.length;
  row.append(row.parts.state, row.parts.id, row.parts.media);
  return row;
}

function why(drive, now) {
  const parts = [];
  if (drive.state === "resetting")
    parts.push(resetProgress(drive));
  if (text(drive.reason))
    parts.push(text(drive.reason));
  if (number(drive.failure_count))
    parts.push(`failed ${plural(drive.failure_count, "time")}`
      + (number(drive.last_failed_at) && now ? `, last ${span(now - drive.last_failed_at)} ago` : ""));
  if (drive.state === "blacklisted")
    parts.push("only memkv drive reset brings it back");
  return parts.join(" · ")
    || (drive.state === "online" ? "it has not said how it is" : "nothing is known of it while it is not open");
}

function updateDriveRow(row, drive, model, silent) {
  const {parts} = row;
  const id = drive.device_id;
  const how = driveState(drive, silent);
  setAttribute(row, "data-level", how.level);
  state(parts.state, how);
  setText(parts.id, String(number(id) ?? "?"));
  setText(parts.name, text(drive.media) || DASH);
  const model_ = text(drive.model, 80);
  const notes = [model_ !== text(drive.media) ? model_ : "", drive.member === false ? "no keys are placed on it" : ""];
  setText(parts.model, notes.filter((each) => each !== "").join(" · "));

  const open = number(drive.usable_bytes) !== null;
  const now = number(object(model.document).time);
  if (!open) {
    setText(row.closed, why(drive, now));
    if (row.closed.parentNode !== row) {
      row.open.forEach((each) => each.remove());
      row.append(row.closed);
    }
    return;
  }
  if (row.open[0].parentNode !== row) {
    row.closed.remove();
    row.append(...row.open);
  }
  const [, read, written, reads, writes, flush, depth, errors] = row.open;
  const share = ratio(drive.used_bytes, drive.usable_bytes);
  parts.bar.show(share, fullness(share));
  setText(parts.fill, percent(share));
  setText(parts.size, `${bytes(drive.used_bytes)} of ${bytes(drive.usable_bytes)}`);
  const io = object(drive.io);
  const rate = (name) => model.driveRate(id, name);
  two(read, byteRate(rate("read_bytes")), countRate(rate("reads"), "/s"));
  two(written, byteRate(rate("written_bytes")), countRate(rate("writes"), "/s"));
  const last = model.bounds.at(-1) ?? null;
  const pair = (times) => [latency(times.p50, last), latency(times.p99, last)];
  two(reads, ...pair(model.driveTimes(id, "read")));
  two(writes, ...pair(model.driveTimes(id, "write")));
  setText(flush, latency(model.driveTimes(id, "flush").p99, last));
  setText(depth, `${count(io.in_flight)} / ${count(io.depth_most)}`);
  const wrong = [[io.errors, "I/O"], [drive.corrupt_blocks, "corrupt"], [io.slow, "slow"],
                 [drive.failure_count, "failed"]].filter(([times]) => number(times));
  setText(errors, wrong.length === 0 ? "0" : wrong.map(([times, what]) => `${count(times)} ${what}`).join(", "));
  setAttribute(errors, "data-level", wrong.length === 0 ? "" : "warn");
}

export function showDrives(model, silent) {
  const drives = drivesOf(model.document).slice(0, 1024);
  const key = (drive) => `${drive.device_id} ${text(drive.media)}`;
  const rank = (drive) => driveState(drive, silent).rank;
  const inOrder = [...drives].sort((a, b) => rank(a) - rank(b) || a.device_id - b.device_id);
  children(byId("drive-rows"), inOrder, key, makeDriveRow, (row, drive) => updateDriveRow(row, drive, model, silent));
  byId("drives-none").hidden = drives.length > 0;
  const storage = object(model.document.storage);
  setText(byId("drives-sum"), drives.length === 0 ? ""
    : `${count(storage.drives_online)} of ${count(storage.drives_total)} online · `
      + `${bytes(storage.used_bytes_total)} of ${bytes(storage.usable_bytes_total)} used · `
      + plural(storage.blocks_total, "block"));

  // All drives in short: number, state and fill, in the order of their numbers.
  const strip = byId("strip");
  const byNumber = [...drives].sort((a, b) => a.device_id - b.device_id).slice(0, 64);
  children(strip, byNumber, key, () => {
    const item = el("li", "", el("span", "level"), el("b"), el("span", "unseen"));
    return item;
  }, (item, drive) => {
    const how = driveState(drive, silent);
    const share = ratio(drive.used_bytes, drive.usable_bytes);
    setAttribute(item, "data-level", how.level);
    item.firstChild.style.height = `${Math.min(1, share ?? 0) * 100}%`;
    setText(item.childNodes[1], String(number(drive.device_id) ?? "?"));
    setText(item.lastChild, ` ${how.word}${share === null ? "" : `, ${percent(share, 0)} used`}`);
    setAttribute(item, "title", `Drive ${number(drive.device_id) ?? "?"}: ${how.word}`
      + (share === null ? "" : `, ${percent(share, 0)} used`));
  });
  setAttribute(strip, "data-many", byNumber.length > 8 ? "yes" : "no");
}

export function showLatencies(model) {
  const {operations, stages} = model.latencyNames();
  setText(byId("window"), String(WINDOW_SECONDS));
  byId("latency-none").hidden = operations.length > 0;
  children(byId("latency-head"), operations.length === 0 ? [] : ["", " rate", ...stages], (name) => name, (name) => {
    const head = el("th", name === "" ? "" : "n", name === "" ? "Request" : name.trim());
    head.scope = "col";
    return head;
  }, () => {});
  const last = model.bounds.at(-1) ?? null;
  children(byId("latency-rows"), operations, (name) => name, (name) => {
    const head = el("th", "text", name);
    head.scope = "row";
    return el("tr", "", head);
  }, (row, operation) => {
    const times = stages.map((stage) => model.requestTimes(operation, stage));
    const whole = times[stages.indexOf("total")] ?? times.at(-1);
    while (row.children.length < stages.length + 2)
      row.append(el("td", "n"));
    while (row.children.length > stages.length + 2)
      row.lastChild.remove();
    setText(row.children[1], countRate(whole?.rate ?? null, "/s"));
    times.forEach((each, index) =>
      two(row.children[index + 2], latency(each.p50, last), latency(each.p99, last)));
  });
}

export function showActors(model, silent) {
  const actors = actorsOf(model.document).slice(0, 1024);
  const missing = silent.filter((name) => !actors.some((each) => each.name === name))
    .map((name) => ({name, alive: true, answered: false}));
  const stateOf = (actor) => (silent.includes(actor.name) ? ACTOR_STATES.silent : actorState(actor));
  const all = [...actors, ...missing]
    .sort((a, b) => stateOf(a).rank - stateOf(b).rank || (number(b.restarts) ?? 0) - (number(a.restarts) ?? 0));
  children(byId("actor-rows"), all, (actor) => text(actor.name, 100), () => {
    const head = el("th", "text");
    head.scope = "row";
    return el("tr", "", el("td", "state"), head, el("td", "n"), el("td", "n"), el("td", "n"));
  }, (row, actor) => {
    const [how, name, answer, queue, restarts] = row.children;
    state(how, stateOf(actor));
    setAttribute(row, "data-level", stateOf(actor).level);
    setText(name, text(actor.name, 100));
    setText(answer, stateOf(actor) === ACTOR_STATES.responding ? latency(actor.answered_in_seconds) : DASH);
    setText(queue, count(actor.mailbox));
    setText(restarts, count(actor.restarts));
    setAttribute(restarts, "data-level", number(actor.restarts) ? "warn" : "");
  });
  const bad = all.filter((each) => stateOf(each).level !== "ok").length;
  const restarts = actors.reduce((sum, each) => sum + (number(each.restarts) ?? 0), 0);
  setText(byId("actors-sum"), all.length === 0 ? "nothing is known"
    : `${all.length - bad} of ${all.length} respond · ${plural(restarts, "restart")}`);
}

const CARDS = {
  Memory: (d, model) => {
    const memory = object(d.memory);
    const cache = object(memory.cache);
    const of = (name) => (document) => object(object(document.memory).cache)[name];
    const hits = model.ratio(of("hits"), of("misses"));
    return [
      ["Pool in use", `${bytes(memory.pool_used_bytes)} of ${bytes(memory.pool_bytes)}`,
       ratio(memory.pool_used_bytes, memory.pool_bytes)],
      ["Most in use", bytes(memory.pool_used_bytes_most), ratio(memory.pool_used_bytes_most, memory.pool_bytes)],
      ["Chunk", `${bytes(memory.chunk_bytes)}${memory.huge_pages === true ? ", huge pages" : ""}`],
      ["Refused, no chunk free", count(memory.refused)],
      ["Requests waiting for room", count(memory.requests_waiting)],
      ["Cache", bytes(cache.bytes)],
      ["Cache hit ratio", `${percent(hits)} now, ${percent(ratio(cache.hits, cache.hits + cache.misses))} in all`],
      ["Served from the cache", byteRate(model.rate(of("hit_bytes")))],
      ["Resident, whole process", bytes(memory.resident_bytes)],
    ];
  },
  Network: (d, model) => {
    const network = object(d.network);
    const rdma = object(d.rdma);
    return [
      ["Connections", `${count(network.connections)} of ${count(network.connections_max)}`,
       ratio(network.connections, network.connections_max)],
      ["Not authenticated yet", count(network.unauthenticated)],
      ["Sessions", count(rdma.sessions)],
      ["RDMA", rdma.active === true ? `active, ${plural(rdma.connections, "connection")}`
        : Array.isArray(rdma.rails) && rdma.rails.length === 0 ? "not configured" : "not active"],
      ...list(rdma.rails).slice(0, 16).map(object).map((rail) => [
        `Rail ${count(rail.rail)}: ${text(rail.device, 40)}`,
        rail.state === "online"
          ? `${plural(rail.sessions, "session")}, ${bytes(rail.fetched_bytes)} fetched, ${
            bytes(rail.placed_bytes)} placed`
          : `${text(rail.state, 20)}${rail.reason ? `: ${text(rail.reason, 160)}` : ""}`]),
      ["Requests open", `${count(network.requests_open)}, ${bytes(network.held_bytes)} held`],
      ["Accepted", `${count(network.accepted)}, ${countRate(
        model.rate((document) => object(document.network).accepted), "/s")}`],
      ["Refused", count(network.refused)],
      ...Object.entries(object(network.closed)).filter(([, times]) => number(times)).slice(0, 16)
        .map(([reason, times]) => [`Closed: ${text(reason, 40).replaceAll("_", " ")}`, count(times)]),
    ];
  },
  Evictions: (d, model) => {
    const eviction = object(d.eviction);
    const of = (name) => (document) => object(document.eviction)[name];
    return [
      ["Eviction", eviction.enabled === true ? `above ${percent(eviction.high_watermark, 0)}, down to ${
        percent(eviction.low_watermark, 0)}` : eviction.enabled === false ? "off" : DASH],
      ["Now", `${countRate(model.rate(of("evicted_blocks")), "block/s")}, ${
        byteRate(model.rate(of("evicted_bytes")))}`],
      ["Since the start", `${plural(eviction.evicted_blocks, "block")}, ${bytes(eviction.evicted_bytes)}`],
      ["Age of the last one", number(eviction.oldest_age_seconds) ? span(eviction.oldest_age_seconds) : DASH],
      ["Waiting for TRIM", bytes(drivesOf(d).reduce(
        (sum, each) => sum + (number(object(each.trim).waiting_bytes) ?? 0), 0))],
    ];
  },
  Requests: (d, model) => {
    const requests = object(d.requests);
    const rate = (name) => countRate(model.rate((document) => object(document.requests)[name]), "/s");
    const line = (label, name) => [label, count(requests[name]), null, number(requests[name]) ? rate(name) : ""];
    return [
      line("Reads", "reads"), line("Read misses", "read_misses"), line("Writes", "writes"),
      line("Deletes", "deletes"), line("Keys asked for", "exists_keys"), line("Prefixes", "prefixes"),
      line("Failed writes", "write_failures"), line("Corrupt blocks", "corrupt_blocks"),
      line("Damaged values refused", "digest_mismatches"), line("Deadlines missed", "deadlines_exceeded"),
      line("Told to come back", "busy"), line("Dropped, stale", "dropped_stale"),
      line("Dropped, replayed", "dropped_replayed"),
    ];
  },
  Server: (d) => {
    const license = object(d.license);
    const storage = object(d.storage);
    const log = object(d.log);
    const ends = number(license.expires_at) ? `${span(license.expires_at - (number(d.time) ?? 0))} left, until ${
      moment(license.expires_at).slice(0, 10)}` : "";
    return [
      ["Version", text(d.version, 80) || DASH],
      ["Up", `${span(d.uptime_seconds)}, since ${moment(d.started_at)}`],
      ["Phase", text(d.phase, 20) || DASH],
      ["Licence", d.license === undefined || d.license === null ? "nothing is known of one"
        : `${license.valid === true ? "" : "not valid: "}${text(license.plan, 40) || "no plan"}${
          license.development === true ? ", development" : ""}`],
      ["Licensed to", [text(license.organization, 80), text(license.source, 80)].filter(Boolean).join(", from ") || DASH],
      ["Licence ends", ends || DASH],
      ["Storage", [text(storage.mode, 20), number(storage.block_size) ? `blocks of ${bytes(storage.block_size)}` : ""]
        .filter(Boolean).join(", ") || DASH],
      ["Shard", bytes(storage.shard_size)],
      ["Set", text(d.server_id, 64) || DASH],
      ["Log", `${plural(log.error, "error")}, ${plural(log.warn, "warning")}, ${count(log.lost)} lost`],
    ];
  },
};

export function showCards(model) {
  children(byId("cards"), Object.keys(CARDS), (title) => title, (title) => {
    const card = el("section", "card", el("h2", "", title), el("dl"));
    card.firstChild.id = `t-${title.toLowerCase()}`;
    card.setAttribute("aria-labelledby", card.firstChild.id);
    return card;
  }, (card, title) => {
    children(card.lastChild, CARDS[title](model.document, model), ([label]) => label, ([label]) => {
      const line = el("div", "", el("dt", "text", label), el("dd", "text", el("span"), el("small")));
      return line;
    }, (line, [, value, share, second]) => {
      const [shown, small] = line.children[1].childNodes;
      setText(shown, value);
      setText(small, second ?? "");
      if (number(share) !== null) {
        line.bar ??= bar();
        line.bar.show(share, fullness(share));
        if (line.bar.parentNode !== line)
          line.append(line.bar);
      } else {
        line.bar?.remove();
      }
    });
  });
}
