// A clock for the page that goes only when it is told to, so that ten minutes pass in a second and nothing
// depends on how busy the machine is. Put into the page before its own scripts.
(() => {
  const timers = new Map();
  let now = 0;
  let number = 0;
  let waiting = 0; // requests without an answer
  const began = Date.now();
  window.setTimeout = (call, delay = 0) => {
    timers.set(++number, {call, at: now + delay});
    return number;
  };
  window.clearTimeout = (id) => timers.delete(id);
  performance.now = () => now;
  Date.now = () => began + now;
  const later = MessageChannel;
  const breathe = () => new Promise((done) => {
    const channel = new later();
    channel.port1.onmessage = () => done();
    channel.port2.postMessage(0);
  });
  const fetchReally = window.fetch.bind(window);
  window.fetch = async (...parts) => {
    ++waiting;
    try {
      const response = await fetchReally(...parts);
      const text = await response.text();
      return new Response(text, {status: response.status});
    } finally {
      --waiting;
    }
  };
  // Nothing is left to do but to wait for time.
  const settle = async (hang) => {
    for (let quiet = 0; quiet < 5; quiet = waiting > 0 && !hang ? 0 : quiet + 1)
      await breathe();
  };
  /** Lets that many milliseconds pass. `hang`: do not wait for answers, they do not come. */
  window.pass = async (milliseconds, hang = false) => {
    const end = now + milliseconds;
    await settle(hang);
    for (;;) {
      let first = null;
      for (const [id, timer] of timers) {
        if (timer.at <= end && (first === null || timer.at < first[1].at))
          first = [id, timer];
      }
      if (first === null)
        break;
      timers.delete(first[0]);
      now = Math.max(now, first[1].at);
      first[1].call();
      await settle(hang);
    }
    now = end;
    return now;
  };
})();
