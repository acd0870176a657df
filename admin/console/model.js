// What the page knows: the last answers of the server, and what follows from their differences.
//
// Counters rise as long as the server lives. When it has started again they begin at zero: then nothing is
// compared with what was before. Time between two answers is the server's own uptime, which no step of a
// clock changes.
import {list, number, object, text} from "./format.js";

export const WINDOW_SECONDS = 6;    // of rates and percentiles
export const HISTORY_SECONDS = 600; // of charts
const GAP_SECONDS = 10;             // without an answer: a hole in the charts

const sum = (values) => values.reduce((all, each) => all + (number(each) ?? 0), 0);

/** Upper bound of the bucket's share: linear inside a bucket; Infinity beyond the last bound. */
export function quantile(counts, bounds, share) {
  const all = sum(counts);
  if (all <= 0)
    return null;
  let rank = share * all;
  for (let bucket = 0; bucket < counts.length; ++bucket) {
    if (counts[bucket] > 0 && rank <= counts[bucket]) {
      if (bucket >= bounds.length)
        return Infinity;
      const low = bucket === 0 ? 0 : bounds[bucket - 1];
      return low + (bounds[bucket] - low) * (rank / counts[bucket]);
    }
    rank -= counts[bucket];
  }
  return Infinity;
}

/** now - before, of one counter; null when it is unknown or fell. */
function rise(now, before) {
  const a = number(now);
  const b = number(before);
  return a === null || b === null || a < b ? null : a - b;
}

function riseOfCounts(now, before) {
  const a = list(now);
  const b = list(before);
  if (a.length === 0 || a.length !== b.length)
    return null;
  const difference = a.map((each, bucket) => rise(each, b[bucket]));
  return difference.includes(null) ? null : difference;
}

const objects = (value) => list(value).filter((each) => Object.keys(object(each)).length > 0);
export const drivesOf = (document) => objects(object(document.storage).devices);
export const actorsOf = (document) => objects(document.actors).filter((each) => text(each.name) !== "");
const seriesOf = (document) => objects(object(document.latency).series);

// What an operator wants to hear of when it rose lately.
const TROUBLE = {
  corrupt: (d) => number(object(d.requests).corrupt_blocks),
  digests: (d) => number(object(d.requests).digest_mismatches),
  writeFailures: (d) => number(object(d.requests).write_failures),
  deadlines: (d) => number(object(d.requests).deadlines_exceeded),
  busy: (d) => number(object(d.requests).busy),
  replayed: (d) => number(object(d.requests).dropped_replayed),
  refused: (d) => number(object(d.network).refused),
  noChunk: (d) => number(object(d.memory).refused),
  restarts: (d) => sum(actorsOf(d).map((each) => each.restarts)),
  logErrors: (d) => number(object(d.log).error),
};

export class Model {
  document = null;  // the last one
  heardAt = null;   // when it came, on this page's clock, in seconds
  restartedAt = null;
  points = [];      // of the charts
  #answers = [];    // {at, uptime, document} of the last window and a little more
  #troubles = [];   // {at, values} of the history

  /** True when the document says more than that something went wrong. */
  static isDocument(value) {
    return ["storage", "requests", "actors", "phase"].some((name) => name in object(value));
  }

  /** Takes an answer. `at`: seconds of the page's clock, which never goes back. */
  take(document, at) {
    const uptime = number(document.uptime_seconds) ?? at;
    const last = this.#answers.at(-1);
    let restarted = false;
    if (last !== undefined) {
      const [now, before] = [document, last.document].map((each) => number(each.started_at));
      // 0 and no time at all: it does not know yet.
      restarted = uptime < last.uptime || Boolean(now && before && Math.abs(now - before) > 2);
      if (uptime === last.uptime && !restarted) { // one gathering served several who asked
        this.document = document;
        this.heardAt = at;
        return;
      }
    }
    if (restarted) {
      this.restartedAt = at;
      this.#troubles = [];
    }
    const pause = last === undefined ? 0 : Math.max(uptime - last.uptime, at - last.at);
    if (restarted || pause > GAP_SECONDS) {
      this.#answers = [];
      this.interrupt(at, restarted);
    }
    this.#answers.push({at, uptime, document});
    while (this.#answers.length > 2 && uptime - this.#answers[1].uptime >= WINDOW_SECONDS)
      this.#answers.shift();
    this.document = document;
    this.heardAt = at;

    const values = {};
    for (const [name, of] of Object.entries(TROUBLE))
      values[name] = of(document);
    this.#troubles.push({at, values});
    this.points.push(this.#point(at));
    const first = at - HISTORY_SECONDS;
    while (this.points.length > 0 && this.points[0].at < first - GAP_SECONDS)
      this.points.shift();
    while (this.#troubles.length > 1 && this.#troubles[0].at < first)
      this.#troubles.shift();
  }

  /** Nothing is known of the time before `at`: charts show a hole. */
  interrupt(at, restarted = false) {
    if (this.points.length > 0 && (restarted || !this.points.at(-1).gap))
      this.points.push({at, gap: true, restarted});
  }

  /** How much a counter of TROUBLE rose in the last ten minutes, or since the page was opened. */
  lately(name) {
    const oldest = this.#troubles[0];
    return oldest === undefined ? 0 : rise(this.#troubles.at(-1).values[name], oldest.values[name]) ?? 0;
  }

  latelySeconds() {
    return this.#troubles.length < 2 ? 0 : this.#troubles.at(-1).at - this.#troubles[0].at;
  }

  /** How much of(document) rises in a second; null when that is not known. */
  rate(of) {
    const change = this.#change(of);
    return change === null ? null : change.rise / change.seconds;
  }

  /** A share of what happened: a / (a + b); null when nothing did. */
  ratio(a, b) {
    const part = this.#change(a);
    const rest = this.#change(b);
    if (part === null || rest === null || part.rise + rest.rise === 0)
      return null;
    return part.rise / (part.rise + rest.rise);
  }

  get bounds() {
    return list(object(object(this.document).latency).bounds_seconds);
  }

  /** Percentiles and rate of what find(document) counts in buckets. */
  times(find) {
    const unknown = {p50: null, p99: null, rate: null};
    const [now, before] = this.#ends();
    if (before === undefined)
      return unknown;
    const counts = riseOfCounts(find(now.document), find(before.document));
    if (counts === null)
      return unknown;
    return {p50: quantile(counts, this.bounds, 0.5), p99: quantile(counts, this.bounds, 0.99),
            rate: sum(counts) / (now.uptime - before.uptime)};
  }

  requestTimes(operation, stage) {
    return this.times((document) => seriesOf(document)
      .find((each) => each.operation === operation && each.stage === stage)?.counts);
  }

  driveTimes(id, operation) {
    return this.times((document) => objects(drivesOf(document).find((each) => each.device_id === id)?.latency)
      .find((each) => each.operation === operation)?.counts);
  }

  driveRate(id, name) {
    return this.rate((document) =>
      object(drivesOf(document).find((each) => each.device_id === id)?.io)[name]);
  }

  /** Names of operations and stages, in a useful order. */
  latencyNames() {
    const order = ["get", "put", "exists", "delete", "queue", "drive", "network", "total"];
    const place = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
    const names = (field) => [...new Set(seriesOf(object(this.document)).map((each) => text(each[field], 40)))]
      .filter((name) => name !== "").sort((a, b) => place(a) - place(b)).slice(0, 32);
    return {operations: names("operation"), stages: names("stage")};
  }

  #ends() {
    return this.#answers.length < 2 ? [] : [this.#answers.at(-1), this.#answers[0]];
  }

  #change(of) {
    const [now, before] = this.#ends();
    if (before === undefined)
      return null;
    const seconds = now.uptime - before.uptime;
    const difference = rise(of(now.document), of(before.document));
    return difference === null || seconds <= 0 ? null : {rise: difference, seconds};
  }

  #point(at) {
    const d = this.document;
    const requests = (name) => (document) => object(document.requests)[name];
    const evicted = (name) => (document) => object(document.eviction)[name];
    const storage = object(d.storage);
    const memory = object(d.memory);
    const share = (part, all) =>
      (number(part) === null || !number(all) ? null : number(part) / number(all));
    const get = this.requestTimes("get", "total");
    const put = this.requestTimes("put", "total");
    return {
      at,
      readBytes: this.rate(requests("read_bytes")), reads: this.rate(requests("reads")),
      writeBytes: this.rate(requests("write_bytes")), writes: this.rate(requests("writes")),
      getP50: get.p50, getP99: get.p99, putP50: put.p50, putP99: put.p99,
      hits: this.ratio(requests("reads"), requests("read_misses")),
      misses: this.rate(requests("read_misses")),
      used: share(storage.used_bytes_total, storage.usable_bytes_total), usedBytes: number(storage.used_bytes_total),
      usableBytes: number(storage.usable_bytes_total),
      evictedBytes: this.rate(evicted("evicted_bytes")), evicted: this.rate(evicted("evicted_blocks")),
      pool: share(memory.pool_used_bytes, memory.pool_bytes), poolBytes: number(memory.pool_used_bytes),
      waiting: number(memory.requests_waiting),
    };
  }
}
