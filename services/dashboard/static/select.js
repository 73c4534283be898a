// Says how many jobs are selected, and which of the buttons make sense.
"use strict";
(() => {
  const form = document.getElementById("selected"), chosen = document.getElementById("chosen");
  const count = () => [...form.elements].filter((box) => box.name === "job" && box.checked).length;

  function show() {
    const number = count();
    form.hidden = !number;  // where there is no JavaScript it always stands there
    chosen.textContent = number ? `${number} selected:` : "Select jobs to";
    for (const button of form.querySelectorAll("button")) {
      button.disabled = button.value === "compare" ? number < 2 || number > 20 : number < 1;
    }
  }

  document.addEventListener("change", show);
  document.addEventListener("live", show);
  addEventListener("pageshow", show);
  show();
})();
