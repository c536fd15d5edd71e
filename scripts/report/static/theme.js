"use strict";
// Before anything is drawn, so that nothing flashes: what was chosen last, else what the system says.
(() => {
  let chosen = null;
  try { chosen = localStorage.getItem("theme"); } catch { /* a page from a file may keep nothing */ }
  const asked = new URLSearchParams(location.hash.slice(1)).get("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const known = [asked, chosen].find((name) => name === "dark" || name === "light");
  document.documentElement.dataset.theme = known ?? (dark ? "dark" : "light");
})();
