// Listens to what is new of a job, and lets the page ask for it at once instead of every two seconds. Where no stream
// is to be had, the page goes on asking by itself.
"use strict";
(() => {
  const NUDGE_MS = 700;
  const place = document.getElementById("stream");
  const kinds = ["state", "started", "metrics", "log", "progress", "child", "end"];
  let source = null, last = null, timer = null;

  const say = (listening) => document.dispatchEvent(new CustomEvent("stream", { detail: listening }));

  function nudge() {
    timer ??= setTimeout(() => {
      timer = null;
      document.dispatchEvent(new Event("news"));
    }, NUDGE_MS);
  }

  function open() {
    const address = new URL(place.dataset.url, location.href);
    if (last) address.searchParams.set("after", last);
    source = new EventSource(address);
    source.onopen = () => say(true);
    source.onerror = () => say(false);  // the browser tries again, unless it was refused
    for (const kind of kinds) {
      source.addEventListener(kind, (event) => {
        last = event.lastEventId || last;
        nudge();
        if (kind === "end") close();
      });
    }
  }

  function close() {
    source?.close();
    source = null;
    say(false);
  }

  // A page that nobody looks at keeps no stream: browsers and servers have few.
  document.addEventListener("visibilitychange", () => {
    const ended = document.querySelector("[data-live][data-active]") === null;
    if (document.hidden) close();
    else if (!source && !ended) open();
  });
  addEventListener("pagehide", close);
  open();
})();
