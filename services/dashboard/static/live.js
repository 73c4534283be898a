// Keeps a page up to date: asks for its live regions every two seconds (`data-every` says otherwise) and changes in place
// what differs, so that focus, scrolling and open details stay. Rests while nothing runs or nobody looks; where stream.js
// hears of news, it asks when there are some.
"use strict";
(() => {
  const EVERY_MS = 2000, MOST_WAIT_MS = 30000, MOST_LINES = 2000;
  const announcer = document.getElementById("announcer");
  let timer = null, asking = false, again = false, listening = false, failures = 0;

  const isActive = () => document.querySelector("[data-live][data-active]") !== null;

  async function ask(address) {
    const response = await fetch(address, { headers: { "X-Live": "1" } });
    if (response.redirected) location.reload();  // the session has ended: the server sends us to sign in
    if (response.redirected || !response.ok) throw new Error(`HTTP ${response.status}`);
    const holder = document.createElement("template");
    holder.innerHTML = await response.text();
    return holder.content;
  }

  // Removes a node. Returns the one that stood after it.
  function without(node) {
    const next = node.nextSibling;
    node.remove();
    return next;
  }

  // Makes `old` like `fresh`. Elements with an id are the same thing before and after; others are matched in order.
  function morph(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== Node.ELEMENT_NODE) return void (old.data = fresh.data);
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const kept = new Set([...fresh.children].map((child) => child.id).filter(Boolean));
    const known = new Map();
    for (const child of [...old.children]) {
      if (!child.id) continue;
      if (kept.has(child.id)) known.set(child.id, child);
      else child.remove();
    }
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      const same = known.get(next.id);
      if (same) {
        while (at && at !== same && !at.id) at = without(at);
        if (at === same) at = at.nextSibling;
        else old.insertBefore(same, at);
        morph(same, next);
      } else if (at && !at.id && !next.id && at.nodeName === next.nodeName) {
        const changed = at;
        at = at.nextSibling;
        morph(changed, next);
      } else old.insertBefore(next, at);
    }
    while (at) at = without(at);
  }

  function states() {
    return new Map([...document.querySelectorAll("[data-job]")].map((row) => [row.id, { ...row.dataset }]));
  }

  function announce(before) {
    const news = [...states()].filter(([id, now]) => before.has(id) && before.get(id).state !== now.state);
    if (news.length) announcer.textContent = news.map(([, now]) => `${now.job}: ${now.state}`).join("; ");
  }

  async function refresh() {
    const before = states(), page = await ask(location.href);
    for (const region of page.querySelectorAll("[data-live]")) {
      const old = document.getElementById(region.id);
      if (old) morph(old, region);
    }
    const titled = document.querySelector("[data-title]");
    if (titled) document.title = titled.dataset.title;
    announce(before);
    document.dispatchEvent(new Event("live"));
  }

  // Appends the lines that are new; stays at the end if the reader is there.
  async function follow(log) {
    const box = log.parentElement;
    for (let more = true; more;) {
      const atEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 8;
      const after = log.lastElementChild?.dataset.id ?? 0;
      const lines = [...(await ask(`${log.dataset.log}?after=${after}`)).children];
      log.append(...lines);
      while (log.children.length > MOST_LINES) log.firstElementChild.remove();
      if (atEnd) box.scrollTop = box.scrollHeight;
      more = lines.length >= 500;
    }
  }

  async function tick() {
    clearTimeout(timer);
    if (asking) again = true;  // what came meanwhile may not be in the answer
    if (asking || document.hidden) return;
    asking = true;
    again = false;
    try {
      await refresh();
      for (const log of document.querySelectorAll("[data-log]")) await follow(log);
      if (failures) announcer.textContent = "Up to date again";
      failures = 0;
    } catch {
      if (!failures) announcer.textContent = "The server does not answer; trying again";
      failures += 1;
    }
    document.body.classList.toggle("stale", failures > 0);
    asking = false;
    if (again) setTimeout(tick, 0);
    else if (isActive() && !listening || failures) plan();
  }

  function plan() {
    clearTimeout(timer);
    const every = Number(document.querySelector("[data-every]")?.dataset.every ?? EVERY_MS);
    timer = setTimeout(tick, Math.min(every * 2 ** failures, MOST_WAIT_MS));
  }

  document.addEventListener("news", tick);
  document.addEventListener("stream", (event) => {
    listening = event.detail;
    if (listening) clearTimeout(timer);
    else if (isActive()) plan();
  });

  for (const log of document.querySelectorAll("[data-log]")) log.parentElement.scrollTop = log.parentElement.scrollHeight;
  if (document.querySelector("[data-live]")) {
    document.addEventListener("visibilitychange", () => document.hidden ? clearTimeout(timer) : tick());
    if (isActive()) plan();
  }
})();
