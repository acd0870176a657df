// What is the matter: the server's own words first, then what the figures say beside them.
import {list, number, object, percent, plural, latency, span, text} from "./format.js";
import {actorsOf, drivesOf} from "./model.js";

// How a state is shown; `rank` puts what needs looking at first.
export const DRIVE_STATES = {
  blacklisted: {level: "bad", rank: 0, word: "blacklisted"},
  offline: {level: "bad", rank: 1, word: "offline"},
  resetting: {level: "busy", rank: 2, word: "resetting"},
  opening: {level: "busy", rank: 3, word: "opening"},
  joining: {level: "busy", rank: 4, word: "joining"},
  online: {level: "ok", rank: 6, word: "online"},
};
/** `silent`: names of the actors that did not answer. */
export function driveState(drive, silent = []) {
  if (silent.includes(`drive-${drive.device_id}`))
    return {level: "bad", rank: 1, word: "silent"};
  return Object.hasOwn(DRIVE_STATES, drive.state) ? DRIVE_STATES[drive.state]
    : {level: "note", rank: 5, word: text(drive.state, 20) || "unknown"};
}

export const ACTOR_STATES = {
  silent: {level: "bad", rank: 0, word: "silent"},
  gone: {level: "warn", rank: 1, word: "not there"},
  responding: {level: "ok", rank: 2, word: "responding"},
};
export function actorState(actor) {
  if (actor.alive === false)
    return ACTOR_STATES.gone;
  return actor.answered === false ? ACTOR_STATES.silent : ACTOR_STATES.responding;
}

export function resetProgress(drive) {
  const reset = object(drive.reset);
  const all = number(reset.total_bytes);
  const how = reset.secure === true ? "its data are overwritten" : "it is emptied";
  return all ? `${how}, ${percent(number(reset.done_bytes) / all, 0)} done` : how;
}

const escaped = (name) => name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
/** Is this name in one of the sentences? drive-1 is not in "drive-12". */
const named = (name, sentences) => {
  const pattern = new RegExp(`(^|[^\\w-])${escaped(name)}($|[^\\w])`, "i");
  return name !== "" && sentences.some((sentence) => pattern.test(sentence));
};

// A drive among others of its kind that takes much longer than they do wears out, or is wrongly attached.
const SLOW_TIMES = 4;
const SLOW_SECONDS = 0.001;

function slowDrives(model) {
  const found = [];
  for (const [operation, word] of [["read", "Reads"], ["write", "Writes"]]) {
    const known = drivesOf(model.document)
      .map((drive) => ({id: drive.device_id, p50: model.driveTimes(drive.device_id, operation).p50}))
      .filter((each) => each.p50 !== null);
    const middle = known.map((each) => each.p50).sort((a, b) => a - b)[Math.floor((known.length - 1) / 2)];
    if (known.length < 3)
      continue;
    for (const {id, p50} of known) {
      if (p50 > SLOW_TIMES * middle && p50 > SLOW_SECONDS)
        found.push(`Drive ${id} is slow. ${word} take ${latency(p50, model.bounds.at(-1))} (p50), of the other drives ${
          latency(middle)}.`);
    }
  }
  return found.slice(0, 8);
}

/** {level, text} of everything an operator should know, worst first. `silent`: names from the answer. */
export function findings(model, silent, error) {
  const document = model.document;
  const found = [];
  const add = (level, sentence) => found.push({level, text: sentence});
  const reasons = list(document.reasons).map((each) => text(each)).filter((each) => each !== "").slice(0, 50);
  const level = document.status === "unhealthy" ? "bad" : "warn";

  if (silent.length > 1) // the headline names a single one
    silent.forEach((name) => add("bad", `${name} does not answer.`));
  if (error !== "" && silent.length === 0 && !reasons.includes(error))
    add("bad", error);
  for (const reason of reasons) {
    if (!silent.some((name) => named(name, [reason])))
      add(level, reason);
  }

  const away = new Set();
  for (const drive of drivesOf(document)) {
    const id = number(drive.device_id);
    const state = driveState(drive);
    const name = `Drive ${id ?? "?"}`;
    if (state.level !== "ok")
      away.add(`drive-${id}`);
    const told = named(`drive ${id}`, reasons) || named(`drive-${id}`, reasons)
      || (text(drive.media).includes("/") && named(text(drive.media), reasons));
    if (state.level === "bad" && !told)
      add("bad", `${name} is ${state.word}${drive.reason ? `: ${text(drive.reason)}` : "."}`);
    else if (drive.state === "resetting" && !told)
      add("note", `${name} is being reset: ${resetProgress(drive)}.`);
    const oldest = number(object(drive.io).oldest_seconds);
    if (oldest !== null && oldest >= 1)
      add("warn", `${name}: a request has been in the kernel for ${latency(oldest)}.`);
  }
  for (const sentence of slowDrives(model))
    add("warn", sentence);
  for (const actor of actorsOf(document)) {
    const name = text(actor.name, 60);
    if (away.has(name)) // its drive was told of
      continue;
    if (actorState(actor) === ACTOR_STATES.gone && !named(name, reasons) && !silent.includes(name))
      add("warn", `The actor ${name} is not there.`);
  }

  const license = object(document.license);
  const days = number(license.days_left);
  if (license.valid === false)
    add("bad", "The licence is not valid.");
  else if (days !== null && number(license.expires_at) && days <= 30)
    add(days <= 7 ? "warn" : "note", days <= 0 ? "The licence ends today." : `The licence ends in ${plural(days, "day")}.`);
  if (document.fault_injection === true)
    add("warn", "Fault injection is switched on: this server may be made to fail on purpose.");

  const network = object(document.network);
  if (number(network.connections_max) && network.connections >= 0.9 * network.connections_max)
    add("warn", `${percent(network.connections / network.connections_max, 0)} of the connections are in use.`);
  const waiting = number(object(document.memory).requests_waiting);
  if (waiting)
    add("note", `${plural(waiting, "request")} ${waiting === 1 ? "waits" : "wait"} for room in the pool.`);

  const when = `in the last ${span(Math.max(1, model.latelySeconds()))}`;
  const lately = (counter, kind, one, many) => {
    const times = model.lately(counter);
    if (times > 0)
      add(kind, `${plural(times, one, many)} ${when}.`);
  };
  lately("corrupt", "warn", "stored block was found corrupt and not served", "stored blocks were found corrupt and not served");
  lately("restarts", "warn", "restart of an actor", "restarts of actors");
  lately("logErrors", "warn", "error in the log", "errors in the log");
  lately("writeFailures", "warn", "write failed", "writes failed");
  lately("deadlines", "note", "request missed its deadline", "requests missed their deadlines");
  lately("digests", "warn", "value arrived damaged and was refused", "values arrived damaged and were refused");
  lately("replayed", "note", "replayed frame was dropped", "replayed frames were dropped");
  lately("refused", "note", "connection was refused", "connections were refused");
  lately("busy", "note", "request was told to come back later", "requests were told to come back later");

  const order = {bad: 0, warn: 1, note: 2};
  return found.map((each, index) => [each, index])
    .sort(([a, i], [b, j]) => order[a.level] - order[b.level] || i - j).map(([each]) => each);
}

/** The headline: {level, headline, summary}. `link`: what is known of the connection to the server. */
export function judge(model, link, nowSeconds) {
  const document = model.document;
  if (link.state === "asking" && document === null)
    return {level: "busy", headline: "Asking the server", summary: ""};
  if (link.state === "lost") {
    const since = model.heardAt ?? link.askedAt;
    const known = document === null ? "Nothing is known of it yet." : "What is shown below is what it said last.";
    return {level: "bad", headline: `No ${link.answers ? "status" : "answer"} for ${span(nowSeconds - since)}`,
            summary: `${link.reason} ${known}`.trim(), spoken: `The server does not ${link.answers ? "say how it is" : "answer"}.`};
  }
  if (document === null)
    return {level: "bad", headline: "Nothing to show", summary: link.reason};

  const drives = drivesOf(document);
  const online = drives.filter((each) => driveState(each, link.silent).level === "ok").length;
  const away = drives.length - online;
  const phase = text(document.phase, 20);
  let summary = away === 0 ? `${plural(online, "drive")} online.`
    : `${away} of ${plural(drives.length, "drive")} ${away === 1 ? "is" : "are"} not online.`;
  if (link.silent.length > 0) {
    const [one] = link.silent;
    const alone = link.silent.length === 1;
    return {level: "bad", headline: alone ? `Stuck: ${one}` : `${link.silent.length} actors stuck`,
            summary: `${alone ? "It does" : "They do"} not answer within the deadline; what only ${
              alone ? "it knows" : "they know"} is missing below. ${summary}`};
  }
  const words = {
    healthy: {level: "ok", headline: "Healthy"},
    degraded: {level: "warn", headline: "Degraded"},
    unhealthy: {level: "bad", headline: "Unhealthy"},
  };
  if (["opening", "starting", "stopping"].includes(phase)) {
    return {level: "warn", headline: phase === "stopping" ? "Stopping" : "Starting",
            summary: `It takes no requests. ${drives.length > 0 ? summary : ""}`.trim()};
  }
  const health = Object.hasOwn(words, document.status) ? words[document.status]
    : {level: "note", headline: text(document.status, 20) || "Health unknown"};
  if (health.level === "ok" && drives.length > 0 && away === 0)
    summary = `${online === 1 ? "Its drive is online" : `All ${online} drives are online`}, every actor answers.`;
  if (document.status === "degraded")
    summary = `It serves. ${summary}`;
  const {reads, writes} = model.points.at(-1) ?? {};
  if (health.level === "ok" && reads === 0 && writes === 0)
    summary += " Nobody reads or writes now.";
  return {...health, summary};
}
