// Has a form checked while it is filled in, and tells each problem at its field.
"use strict";
(() => {
  const WAIT_MS = 350;
  const form = document.getElementById("submit");
  const address = form.getAttribute("data-check");  // `form.dataset` is the field of that name
  let timer = null, asked = 0;

  function tell(problems) {
    for (const place of form.querySelectorAll(".problem-text")) place.textContent = "";
    for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
    for (const { field, what } of problems) {
      // A problem of a group of fields, or deep inside one, is told at the nearest place that there is.
      for (let name = field; name; name = name.slice(0, Math.max(0, name.lastIndexOf(".")))) {
        const place = document.getElementById(`problem-${name}`);
        if (!place) continue;
        place.textContent = what;
        form.elements.namedItem(name)?.setAttribute("aria-invalid", "true");
        place.closest("details")?.setAttribute("open", "");
        break;
      }
    }
  }

  const problems = () => [...form.querySelectorAll("#problems [data-field]")].map((item) => (
    { field: item.dataset.field, what: item.lastChild.textContent.trim() }));

  async function check() {
    const number = ++asked;
    try {
      const response = await fetch(address, { method: "POST", body: new FormData(form) });
      if (!response.ok || response.redirected || number !== asked) return;
      const holder = document.createElement("template");
      holder.innerHTML = await response.text();
      const old = document.getElementById("checked");
      const hadFocus = old.contains(document.activeElement);
      if (hadFocus) return;  // whoever is about to send it is not interrupted; it is checked again then
      old.replaceWith(holder.content);
      tell(problems());
    } catch { /* it is checked when it is sent, too */ }
  }

  form.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(check, WAIT_MS);
  });
  tell(problems());
  if (!problems().length) check();
})();
