// Sends an archive in parts before the form that names it; what is there already is not sent again.
"use strict";
(() => {
  const TRIES = 6, FIRST_WAIT_MS = 1000;
  const form = document.getElementById("register");
  const file = document.getElementById("file"), drop = document.getElementById("drop");
  const place = document.getElementById("place"), going = document.getElementById("sending");
  const bar = going.querySelector("progress"), words = going.querySelector("p"), stop = going.querySelector("button");
  const problem = document.getElementById("upload-problem"), send = form.querySelector("button.send");
  const other = document.getElementById("no-file");
  const announcer = document.getElementById("announcer"), csrf = form.elements.namedItem("csrf").value;
  let stopping = null;

  document.getElementById("by-file").hidden = false;

  function size(bytes) {
    let unit = "B";
    for (const larger of ["kB", "MB", "GB", "TB"]) {
      if (bytes < 999.5) break;
      bytes /= 1000;
      unit = larger;
    }
    return unit === "B" ? `${bytes} B` : `${bytes.toFixed(1)} ${unit}`;
  }

  function left(seconds) {
    if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
    return seconds < 3600 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
  }

  // Shows how far a stage is. `from`: bytes that were there when it began; the time left follows from the others.
  function stage(doing, total, from = 0) {
    const began = performance.now();
    announcer.textContent = doing;
    return (there) => {
      const seconds = (performance.now() - began) / 1000, rate = (there - from) / seconds;
      const rest = seconds > 2 && rate > 0 && there < total ? `, about ${left((total - there) / rate)} left` : "";
      bar.value = total ? there / total : 1;
      words.textContent = `${doing}: ${size(there)} of ${size(total)}${rest}`;
    };
  }

  function chosen() {
    const one = file.files[0];
    place.required = !one;
    place.disabled = Boolean(one);
    drop.querySelector("b").textContent = one ? `${one.name}, ${size(one.size)}` : drop.dataset.empty;
    other.hidden = !one;
    const name = form.elements.namedItem("name");
    if (one && !name.value) name.value = one.name.replace(/\.(zip|tar|tgz|gz|bz2|tbz2|xz|txz)\b.*$/i, "").replace(/[^\w.-]+/g, "-");
  }

  async function answered(response) {
    if (response.redirected) throw new Error("the session has ended; sign in again in another tab, and go on here");
    if (response.ok) return response.status === 204 ? null : response.json();
    const told = await response.json().catch(() => ({}));
    const error = new Error(told.detail ?? `the server answered with status ${response.status}`);
    error.isFinal = response.status < 500 && response.status !== 429;
    throw error;
  }

  // What the server answers, which is asked again where the line breaks.
  async function ask(address, options, signal) {
    for (let tried = 1; ; tried++) {
      try {
        return await answered(await fetch(address, { ...options, signal }));
      } catch (error) {
        signal.throwIfAborted();
        if (error.isFinal || tried === TRIES) throw error;
        words.textContent = `The line broke (${error.message}); trying again`;
        await new Promise((wake) => setTimeout(wake, FIRST_WAIT_MS * 2 ** (tried - 1)));
      }
    }
  }

  function fields(values) {
    const body = new FormData();
    for (const [name, value] of Object.entries({ csrf, ...values })) body.set(name, value);
    return { method: "POST", body };
  }

  // Returns the id of the complete upload.
  async function upload(one, signal) {
    const sha256 = await Sha256.of(one, stage(`Reading ${one.name}`, one.size), signal);
    const begun = await ask(form.dataset.uploads, fields({ name: one.name, size: one.size, sha256 }), signal);
    if (begun.state === "complete") return begun.id;
    const at = `${form.dataset.uploads}/${begun.id}`, there = new Set(begun.received);
    const bytes = (number) => Math.min(begun.part_size, one.size - (number - 1) * begun.part_size);
    let done = [...there].reduce((sum, number) => sum + bytes(number), 0);
    const tell = stage(there.size ? `Going on with ${one.name}` : `Sending ${one.name}`, one.size, done);
    tell(done);
    for (let number = 1; number <= begun.parts; number++) {
      if (there.has(number)) continue;
      const first = (number - 1) * begun.part_size, part = one.slice(first, first + bytes(number));
      const digest = await Sha256.of(part, undefined, signal);
      const options = { method: "PUT", headers: { "X-CSRF": csrf }, body: part };
      await ask(`${at}/parts/${number}?sha256=${digest}`, options, signal);
      done += bytes(number);
      tell(done);
    }
    bar.removeAttribute("value");
    words.textContent = announcer.textContent = "It is there, and is put together";
    await ask(`${at}/complete`, fields({}), signal);
    return begun.id;
  }

  form.addEventListener("submit", async (event) => {
    const one = file.files[0];
    if (!one) return;
    event.preventDefault();
    stopping = new AbortController();
    problem.hidden = true;
    going.hidden = false;
    send.disabled = other.hidden = true;
    try {
      const id = await upload(one, stopping.signal);
      place.disabled = false;
      place.value = id;
      form.submit();
    } catch (error) {
      going.hidden = true;
      send.disabled = other.hidden = problem.hidden = false;
      problem.className = stopping.signal.aborted ? "notice" : "problem";
      problem.textContent = stopping.signal.aborted
        ? "Stopped. What was sent stays for a week: register the same file to go on."
        : `It was not sent: ${error.message}. What is there stays: register again to go on.`;
    }
  });

  stop.addEventListener("click", () => stopping?.abort());
  file.addEventListener("change", chosen);
  other.addEventListener("click", () => {
    file.value = "";
    chosen();
    file.focus();
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    drop.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind !== "drop" || !event.dataTransfer.files.length) return;
      file.files = event.dataTransfer.files;
      chosen();
    });
  }
  window.addEventListener("pageshow", chosen);
  window.addEventListener("beforeunload", (event) => {
    if (!going.hidden && place.disabled) event.preventDefault();
  });
})();
