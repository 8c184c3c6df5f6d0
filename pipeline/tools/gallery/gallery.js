"use strict";
const part = (name) => document.querySelectorAll('[data-part="' + name + '"]');
const [filters] = part("filters"), [words] = part("words"), [found] = part("found"), [reset] = part("reset");
const choices = [...part("choice")], tiles = [...document.querySelectorAll("li.clip")], sections = [...part("section")];

function filter() {
  const asked = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const tile of tiles) {
    const fits = asked.every((word) => tile.dataset.search.includes(word)) &&
      choices.every((choice) => !choice.value || tile.dataset[choice.dataset.name] === choice.value);
    tile.hidden = !fits;
    shown += fits ? 1 : 0;
  }
  for (const section of sections) {
    section.hidden = section.querySelector("li.clip") && !section.querySelector("li.clip:not([hidden])");
  }
  found.textContent = shown + " of " + tiles.length + " shown";
}

function showAll() {
  words.value = "";
  for (const choice of choices) choice.value = "";
  filter();
}

function follow() {
  let key = location.hash.slice(1);
  try { key = decodeURIComponent(key); } catch { /* as it stands */ }
  if (!key) return;
  const target = document.getElementById(key);
  if (!target) found.textContent = "Not among the clips of this page: " + key;
  else if (!target.checkVisibility()) { showAll(); target.scrollIntoView(); }
}

words.addEventListener("input", filter);
for (const choice of choices) choice.addEventListener("change", filter);
reset.addEventListener("click", showAll);
addEventListener("hashchange", follow);
filters.hidden = false;
filter();
follow();
