// The keys, the verdicts, the heat and the zoom of the browse pages. No library, no build step.
"use strict";

const model = document.body.dataset.model;
const onImagePage = document.body.classList.contains("image-page");
const cards = [...document.querySelectorAll(".card")];
let current = -1;

function say(text) {
  const box = document.getElementById("message");
  box.textContent = text;
  box.classList.toggle("shown", Boolean(text));
  clearTimeout(say.timer);
  if (text) say.timer = setTimeout(() => say(""), 5000);
}

async function post(path, body) {
  let answer;
  try {
    answer = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    say("ganad browse does not answer: is it still running?");
    return null;
  }
  if (!answer.ok) {
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const sentence = page.querySelector("main p") || page.body;
    say(`Not saved. ${sentence.textContent}`);
    return null;
  }
  return answer.json();
}

// Verdicts.

function show(imageId, verdict) {
  for (const card of cards) {
    if (card.dataset.images.split(" ").includes(imageId)) card.dataset.verdict = verdict;
  }
  const said = document.getElementById("said");
  if (said && cards[0].dataset.image === imageId) said.textContent = verdict;
}

function total(answer) {
  const box = document.getElementById("num-verdicts");
  if (box) box.textContent = answer.total.toLocaleString("en");
}

async function judge(card, verdict) {
  const images = card.dataset.images.split(" ");
  const answer = await post("/verdict", { images, verdict, model });
  if (!answer) return;
  images.forEach((image) => show(image, verdict));
  total(answer);
  say(images.length > 1 ? `${images.length} images: ${verdict}` : verdict);
  if (onImagePage) {
    document.getElementById("next")?.click();
  } else if (cards[current] === card) {
    move(1);
  }
}

async function undo() {
  const answer = await post("/undo", {});
  if (!answer) return;
  const images = Object.entries(answer.images);
  images.forEach(([image, verdict]) => show(image, verdict));
  total(answer);
  if (!images.length) {
    say("Nothing to undo in this session.");
    return;
  }
  say(images.length > 1 ? `Undone for ${images.length} images` : "Undone");
  const place = cards.findIndex((card) => card.dataset.image === images[0][0]);
  if (!onImagePage && place >= 0) focus(place);
}

// Moving about.

function focus(place) {
  if (!cards[place]) return;
  cards[current]?.classList.remove("current");
  current = place;
  cards[place].classList.add("current");
  cards[place].focus({ preventScroll: true });
  cards[place].scrollIntoView({ block: "nearest" });
}

function move(step) {
  if (onImagePage) {
    document.getElementById(step > 0 ? "next" : "previous")?.click();
  } else if (cards.length) {
    const place = current < 0 ? 0 : current + step;
    if (place >= cards.length) document.querySelector("a[rel=next]")?.click();
    else if (place < 0) document.querySelector("a[rel=prev]")?.click();
    else focus(place);
  }
}

const keys = {
  j: () => move(1),
  ArrowRight: () => move(1),
  k: () => move(-1),
  ArrowLeft: () => move(-1),
  1: () => chosen() && judge(chosen(), "defect"),
  0: () => chosen() && judge(chosen(), "false alarm"),
  u: undo,
  h: toggleHeat,
  n: () => document.querySelector("a[rel=next]")?.click(),
  p: () => document.querySelector("a[rel=prev]")?.click(),
  Enter: () => cards[current]?.querySelector("a.pictures")?.click(),
  Escape: () => document.getElementById("back")?.click(),
  "?": () => document.getElementById("help").showModal(),
};

function chosen() {
  return onImagePage ? cards[0] : cards[current];
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.getElementById("help").open) return;
  if (event.target.closest("a, button") && event.key === "Enter") return;
  const act = keys[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

document.getElementById("show-help")?.addEventListener("click", keys["?"]);
for (const card of cards) {
  for (const button of card.querySelectorAll(".verdict button")) {
    button.addEventListener("click", () => judge(card, button.dataset.choice));
  }
  card.addEventListener("focusin", () => {
    if (!onImagePage && cards[current] !== card) focus(cards.indexOf(card));
  });
}
for (const form of document.querySelectorAll("form.filters")) {
  form.addEventListener("submit", () => {
    // An address without empty parameters is easier to read and to send to somebody.
    for (const field of form.elements) if (field.name && !field.value) field.disabled = true;
  });
}

// Pictures that are gone say why.

for (const picture of document.querySelectorAll("img.photo")) {
  const explain = async () => {
    const box = document.createElement("span");
    box.className = "missing";
    box.textContent = "gone";
    picture.replaceWith(box);
    const answer = await fetch(picture.src).catch(() => null);
    if (answer) box.textContent = await answer.text();
  };
  if (picture.complete && !picture.naturalWidth && picture.getAttribute("src")) explain();
  else picture.addEventListener("error", explain, { once: true });
}

// Heat: computed by the model, so only what is looked at is asked for.

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) load(entry.target);
  }
});

function load(heat) {
  seen.unobserve(heat);
  if (heat.getAttribute("src")) return;
  heat.addEventListener("error", async () => {
    heat.remove();
    const answer = await fetch(heat.dataset.src).catch(() => null);
    if (answer) say(`No heat: ${await answer.text()}`);
  }, { once: true });
  heat.src = heat.dataset.src;
}

function watchHeat() {
  const on = document.body.classList.contains("heat-on");
  for (const heat of document.querySelectorAll("img.heat[data-src]")) {
    if (on) seen.observe(heat);
    else seen.unobserve(heat);
  }
}

function toggleHeat() {
  const on = document.body.classList.toggle("heat-on");
  watchHeat();
  const mark = (address) => {
    if (on) address.searchParams.set("heat", "1");
    else address.searchParams.delete("heat");
    return address;
  };
  history.replaceState(null, "", mark(new URL(location)));
  for (const link of document.links) {
    if (link.origin === location.origin && link.search) link.href = mark(new URL(link.href));
  }
  const box = document.querySelector("input[name=heat]");
  if (box) box.checked = on;
}

document.querySelector("input[name=heat]")?.addEventListener("change", toggleHeat);
document.getElementById("heat-switch")?.addEventListener("click", toggleHeat);
watchHeat();

// Typical images like this one.

const similar = document.getElementById("similar");
if (similar) {
  fetch(similar.dataset.src)
    .then((answer) => answer.text())
    .then((html) => (similar.innerHTML = html));
}

// Zoom and drag.

const viewer = document.getElementById("viewer");
if (viewer) {
  const stage = document.getElementById("stage");
  const pointers = new Map();
  let scale = 1, x = 0, y = 0, spread = 0;

  const place = () => {
    stage.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    viewer.classList.toggle("sharp", scale > 3);
  };
  const zoom = (factor, atX = viewer.clientWidth / 2, atY = viewer.clientHeight / 2) => {
    const larger = Math.min(40, Math.max(1, scale * factor));
    x = atX - ((atX - x) * larger) / scale;
    y = atY - ((atY - y) * larger) / scale;
    scale = larger;
    if (scale === 1) x = y = 0;
    place();
  };
  const inside = (event) => {
    const box = viewer.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  viewer.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 300), ...inside(event));
  }, { passive: false });
  viewer.addEventListener("pointerdown", (event) => {
    if (event.target.closest("button")) return;
    viewer.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, inside(event));
  });
  viewer.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId)) return;
    const [beforeX, beforeY] = pointers.get(event.pointerId);
    const [nowX, nowY] = inside(event);
    pointers.set(event.pointerId, [nowX, nowY]);
    if (pointers.size === 2) {
      const [a, b] = [...pointers.values()];
      const distance = Math.hypot(a[0] - b[0], a[1] - b[1]);
      if (spread) zoom(distance / spread, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
      spread = distance;
    } else if (scale > 1) {
      x += nowX - beforeX;
      y += nowY - beforeY;
      place();
    }
  });
  for (const end of ["pointerup", "pointercancel"]) {
    viewer.addEventListener(end, (event) => {
      pointers.delete(event.pointerId);
      spread = 0;
    });
  }
  viewer.addEventListener("dblclick", (event) => zoom(scale > 1 ? 1 / scale : 4, ...inside(event)));
  document.getElementById("zoom-in").addEventListener("click", () => zoom(1.6));
  document.getElementById("zoom-out").addEventListener("click", () => zoom(1 / 1.6));
  document.getElementById("zoom-fit").addEventListener("click", () => zoom(1 / scale));
}
