// Lets "5 min ago" grow older on a page that nothing else changes; the words are those of formatting.py.
"use strict";
setInterval(() => {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const seconds = (Date.now() - Date.parse(time.dateTime)) / 1000;
    if (seconds < 60 || seconds >= 30 * 86400) continue;  // of what is old, the page tells the day
    const [length, unit] = [[86400, "day"], [3600, "h"], [60, "min"]].find(([most]) => seconds >= most);
    const number = Math.floor(seconds / length);
    time.textContent = `${number} ${unit}${unit === "day" && number > 1 ? "s" : ""} ago`;
  }
}, 15000);
