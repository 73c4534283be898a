// Sends images that are dropped or chosen to the model of the page, and shows what a worker answered, each beside its picture.
"use strict";
(() => {
  const MOST = 16, SIDE = 320;
  const form = document.getElementById("try"), drop = document.getElementById("drop"), input = document.getElementById("images");
  const waiting = document.getElementById("waiting"), words = document.getElementById("waiting-words");
  const tried = document.getElementById("tried"), announcer = document.getElementById("announcer");
  const button = form.querySelector("button");
  let sent = [], busy = false, over = 0;

  function tell(text) {
    const place = document.createElement("p");
    place.className = "problem";
    place.setAttribute("role", "alert");
    place.textContent = text;
    tried.replaceChildren(place);
  }

  // A small copy of a file's picture; null where the browser can't read it.
  async function picture(file) {
    try {
      const image = await createImageBitmap(file);
      const scale = Math.min(1, SIDE / Math.max(image.width, image.height));
      const canvas = document.createElement("canvas");
      canvas.width = Math.max(1, Math.round(image.width * scale));
      canvas.height = Math.max(1, Math.round(image.height * scale));
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      image.close();
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `The image ${file.name}`);
      return canvas;
    } catch {
      return null;
    }
  }

  async function show(files) {
    for (const item of tried.querySelectorAll("[data-number]")) {
      const drawn = await picture(files[Number(item.dataset.number)]);
      if (drawn) item.querySelector(".seen").prepend(drawn);
    }
  }

  async function send() {
    if (busy) return;
    sent = [...input.files];
    if (!sent.length) return tell("Choose an image first, or drop one.");
    if (sent.length > MOST) return tell(`These are ${sent.length} images; ${MOST} at most, and a job takes any number.`);
    const begun = Date.now(), many = `${sent.length} image${sent.length > 1 ? "s" : ""}`;
    const say = () => {
      words.textContent = `Waiting for a worker to look at ${many}: ${Math.round((Date.now() - begun) / 1000)} s`;
    };
    say();
    const timer = setInterval(say, 1000);
    busy = button.disabled = true;
    waiting.hidden = false;
    tried.replaceChildren();
    announcer.textContent = `Waiting for a worker to look at ${many}`;
    try {
      const answer = await fetch(form.action, { method: "POST", headers: { "X-Live": "1" }, body: new FormData(form) });
      if (answer.redirected) return location.reload();  // the session has ended: the server sends us to sign in
      const holder = document.createElement("template");
      holder.innerHTML = await answer.text();
      if (holder.content.querySelector("main")) {  // a page of its own, which says what is wrong
        tell(holder.content.querySelector("main").textContent.trim().replace(/\s+/g, " "));
      } else {
        tried.replaceChildren(holder.content);
        await show(sent);
        if (answer.ok) announcer.textContent = `${many}: answered`;
      }
      if (!tried.contains(document.activeElement)) tried.focus({ preventScroll: true });
      tried.scrollIntoView({ block: "nearest" });
    } catch {
      tell("The server does not answer; try again in a moment.");
    } finally {
      clearInterval(timer);
      busy = button.disabled = false;
      waiting.hidden = true;
    }
  }

  const hasFiles = (event) => [...event.dataTransfer?.types ?? []].includes("Files");
  const mark = (by) => {
    over = Math.max(0, over + by);
    drop.classList.toggle("over", over > 0);
  };

  // The field itself is not seen: its place says what was chosen.
  const empty = drop.querySelector("b").textContent;
  function name() {
    const names = [...input.files].map((file) => file.name);
    drop.querySelector("b").textContent = names.length > 3 ? `${names.length} images` : names.join(", ") || empty;
  }
  input.addEventListener("change", name);
  addEventListener("pageshow", name);

  // A file that misses the place would be opened instead of the page.
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => hasFiles(event) && event.preventDefault());
  drop.addEventListener("dragenter", (event) => hasFiles(event) && mark(1));
  drop.addEventListener("dragleave", (event) => hasFiles(event) && mark(-1));
  drop.addEventListener("drop", (event) => {
    mark(-over);
    if (!event.dataTransfer.files.length || busy) return;
    event.preventDefault();
    input.files = event.dataTransfer.files;
    name();
    send();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
})();
