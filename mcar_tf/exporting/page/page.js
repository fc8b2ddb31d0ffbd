// The page: pictures in; cards with labels, boxes and times out. What answers is the engine that settings.json names.

import { NotAPicture } from "./picture.js";

const COLORS = ["#ffd500", "#00e5ff", "#ff7ab8", "#8dfc3c", "#ffa63d", "#b79bff"];
const SHOWN_GLOBAL = 0.1; // a region is shown where the first look saw its class, too
const MOST_CARDS = 100;
const $ = (id) => document.getElementById(id);
const MOST_HEIGHT = 400; // of a picture on its card, in px
const percent = (p) => `${(100 * p).toFixed(p > 0.995 && p < 1 ? 1 : 0)}\u00a0%`;

let settings, engine;

const ready = start().catch((error) => {
  setState("failed", `The model could not be loaded: ${error.message}`);
  throw error;
});
ready.catch(() => {}); // whoever asks for it gets the error; nobody else needs it
window.mcar = { ready, look };

async function start() {
  settings = await (await fetch("settings.json")).json();
  $("about").textContent =
    `${settings.name}: ${settings.labels.length} classes. It looks at the whole picture, then again at the regions that matter. ` +
    "A probability is no certainty: check what matters.";
  const chosen = await import(`./${settings.engine}.js`);
  $("promise").textContent = `${chosen.promise}`;
  engine = await chosen.load(settings, (runtime) => setState("ready", `Ready: ${runtime}`));
  setState("ready", `Ready: ${engine.runtime}`);
}

/**
 * For scripts and tests: what is in a picture.
 * @param {Blob} blob
 * @returns {Promise<object>} labels: [{name, prob}] of what is present, probs, global_probs, boxes, box_classes
 */
async function look(blob) {
  await ready;
  const { probs, global_probs, boxes, box_classes } = await engine.look(blob);
  const labels = presentIn(probs).map((c) => ({ name: settings.labels[c], prob: probs[c] }));
  return { labels, probs, global_probs, boxes, box_classes };
}

function setState(state, text) {
  $("state").dataset.state = state;
  $("state-text").textContent = text;
}

/** The classes that reach their threshold, the most probable first. */
function presentIn(probs) {
  const present = [...probs.keys()].filter((c) => probs[c] >= settings.thresholds[c]);
  return present.sort((a, b) => probs[b] - probs[a]);
}

// ------------------------------------------------------------------ cards

let queue = Promise.resolve();

/** Add pictures, which are looked at one after the other. */
function add(blobs) {
  const cards = blobs.slice(0, MOST_CARDS).map(makeCard);
  if (blobs.length > cards.length) say(`Only the first ${MOST_CARDS} are looked at`);
  $("answers").prepend(...cards.map((card) => card.element));
  while ($("answers").children.length > MOST_CARDS) $("answers").lastElementChild.querySelector(".remove").click();
  $("answers-bar").hidden = !$("answers").children.length;
  for (const card of cards) queue = queue.then(() => answer(card));
}

async function answer(card) {
  if (!card.element.isConnected) return; // removed before its turn
  try {
    await ready;
    card.show(await engine.look(card.blob, (first) => (card.show(first, false), painted())));
    say(card.spoken());
  } catch (error) {
    const known = error instanceof NotAPicture;
    card.fail(known ? error.message : `no answer: ${error.message}`);
    say(`${card.name}: ${known ? error.message : "no answer"}`);
  }
}

/** Resolves when what was drawn is on the screen. */
function painted() {
  const hidden = new Promise((resolve) => setTimeout(resolve, 100)); // where nothing is ever drawn
  return Promise.race([hidden, new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)))]);
}

function say(text) {
  $("said").append(Object.assign(document.createElement("span"), { textContent: `${text}. ` }));
  while ($("said").children.length > 20) $("said").firstElementChild.remove();
}

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function makeCard(blob) {
  const element = $("card").content.firstElementChild.cloneNode(true);
  const part = (selector) => element.querySelector(selector);
  const name = blob.name || "picture";
  const address = URL.createObjectURL(blob);
  const frame = make("div", "frame");
  const image = make("img");
  let last;
  image.alt = name;
  image.draggable = false;
  image.onload = () => {
    const shape = image.naturalWidth / image.naturalHeight;
    frame.style.aspectRatio = shape;
    frame.style.width = `min(100%, ${MOST_HEIGHT * shape}px)`;
  };
  image.src = address;
  frame.append(image);
  part(".picture").append(frame);
  part(".picture").classList.add("busy");
  part("h3").textContent = name;
  part("h3").title = name;
  part(".times").textContent = "Waiting …";
  part(".remove").ariaLabel = `Remove ${name}`;
  part(".remove").addEventListener("click", () => {
    const next = element.nextElementSibling ?? element.previousElementSibling;
    element.remove();
    URL.revokeObjectURL(address);
    $("answers-bar").hidden = !$("answers").children.length;
    (next?.querySelector(".remove") ?? $("choose")).focus();
  });

  const card = { element, blob, name };
  card.show = (answer, final = true) => {
    last = answer;
    part(".picture").classList.toggle("busy", !final);
    showLabels(part(".labels"), part(".note"), frame, answer);
    part(".times").textContent = timesText(answer.times, final);
    if (final) showAll(part(".all"), answer);
    if (final && engine.lookAt) aim(frame, blob);
  };
  card.fail = (why) => {
    part(".picture").classList.remove("busy");
    element.classList.add("failed");
    frame.remove();
    part(".labels").replaceChildren();
    part(".note").hidden = false;
    part(".note").textContent = why[0].toUpperCase() + why.slice(1);
    part(".times").textContent = "";
  };
  card.spoken = () => {
    const labels = presentIn(last.probs).map((c) => `${settings.labels[c]} ${percent(last.probs[c])}`);
    image.alt = `${name}: ${labels.join(", ") || "nothing that it knows"}`;
    return image.alt;
  };
  return card;
}

function timesText({ first, both }, final) {
  const ms = (time) => `${time < 10 ? time.toFixed(1) : Math.round(time)} ms`;
  if (!final) return `One look: ${ms(first)} · looking again …`;
  return first === undefined ? `Answered in ${ms(both)}` : `One look: ${ms(first)} · two looks: ${ms(both)}`;
}

function showLabels(list, note, frame, { probs, global_probs, boxes, box_classes }) {
  const present = presentIn(probs);
  const color = new Map(present.map((c, i) => [c, COLORS[i % COLORS.length]]));
  frame.querySelectorAll(".box:not(.own)").forEach((box) => box.remove());
  box_classes.forEach((c, i) => {
    if (!color.has(c) || global_probs[c] <= SHOWN_GLOBAL) return;
    const box = drawBox(boxes[i], settings.labels[c], color.get(c));
    box.dataset.class = c;
    frame.append(box);
  });
  list.replaceChildren(
    ...present.map((c) => {
      const item = make("li", "label");
      const bar = make("div", "bar");
      const [filled, mark] = [make("i"), make("b")];
      item.style.setProperty("--color", color.get(c));
      filled.style.width = `${100 * probs[c]}%`;
      mark.style.left = `${100 * settings.thresholds[c]}%`;
      bar.append(filled, mark);
      bar.title = `counts as present from ${percent(settings.thresholds[c])} on`;
      item.append(make("span", "name", settings.labels[c]), make("span", "prob", percent(probs[c])), bar);
      const light = (on) => {
        const own = frame.querySelector(`.box[data-class="${c}"]`);
        frame.classList.toggle("lit", on && own !== null);
        own?.classList.toggle("lit", on);
      };
      item.addEventListener("pointerenter", () => light(true));
      item.addEventListener("pointerleave", () => light(false));
      return item;
    }),
  );
  note.hidden = present.length > 0;
  if (!present.length) {
    const best = probs.indexOf(Math.max(...probs));
    note.textContent = `Nothing that it is sure of. Closest: ${settings.labels[best]}, ${percent(probs[best])}`;
  }
}

/** A framed region with its title. box: ymin xmin ymax xmax as fractions. */
function drawBox([ymin, xmin, ymax, xmax], title, color) {
  const box = make("div", "box");
  const [top, left] = [Math.max(0, ymin), Math.max(0, xmin)];
  box.style.setProperty("--color", color);
  box.style.top = `${100 * top}%`;
  box.style.left = `${100 * left}%`;
  box.style.height = `${100 * (Math.min(1, ymax) - top)}%`;
  box.style.width = `${100 * (Math.min(1, xmax) - left)}%`;
  box.append(make("span", "", title));
  return box;
}

function showAll(details, { probs, global_probs }) {
  details.hidden = false;
  details.querySelector("summary").textContent = `All ${probs.length} classes, one look and two`;
  const order = [...probs.keys()].sort((a, b) => probs[b] - probs[a]);
  details.querySelector("tbody").replaceChildren(
    ...order.map((c) => {
      const row = make("tr", probs[c] >= settings.thresholds[c] ? "present" : "");
      const head = make("th", "", settings.labels[c]);
      head.scope = "row";
      row.append(head, make("td", "", global_probs[c].toFixed(3)), make("td", "", probs[c].toFixed(3)));
      return row;
    }),
  );
}

/** Drag a rectangle over a picture: it looks there. */
function aim(frame, blob) {
  if (frame.classList.contains("aim")) return;
  frame.classList.add("aim");
  frame.title = "Drag a rectangle to have it look there";
  let from;
  const place = (event) => {
    const { left, top, width, height } = frame.getBoundingClientRect();
    return [(event.clientY - top) / height, (event.clientX - left) / width].map((x) => Math.min(1, Math.max(0, x)));
  };
  frame.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    from = place(event);
    frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointerup", async (event) => {
    const to = place(event);
    if (!from) return;
    const box = [Math.min(from[0], to[0]), Math.min(from[1], to[1]), Math.max(from[0], to[0]), Math.max(from[1], to[1])];
    from = undefined;
    frame.querySelectorAll(".own").forEach((own) => own.remove());
    if (box[2] - box[0] < 0.05 || box[3] - box[1] < 0.05) return;
    const { probs } = await engine.lookAt(blob, box);
    const best = probs.indexOf(Math.max(...probs));
    const own = drawBox(box, `here: ${settings.labels[best]} ${percent(probs[best])}`, "#ffffff");
    own.classList.add("own");
    frame.append(own);
    say(own.textContent);
  });
}

// ------------------------------------------------------------------ ways in

$("choose").addEventListener("click", () => $("files").click());
$("files").addEventListener("change", () => {
  add([...$("files").files]);
  $("files").value = "";
});
$("clear").addEventListener("click", () => {
  for (const button of document.querySelectorAll(".remove")) button.click();
  $("choose").focus();
});
document.addEventListener("paste", (event) => add([...(event.clipboardData?.files ?? [])]));
for (const kind of ["dragover", "dragenter"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, () => $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  add([...(event.dataTransfer?.files ?? [])]);
});

// ------------------------------------------------------------------ the camera

let stream;

$("open-camera").hidden = !navigator.mediaDevices?.getUserMedia; // browsers give it to https and localhost alone
$("open-camera").addEventListener("click", async () => {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    $("camera").hidden = false;
    $("camera-text").textContent = `There is no camera for this page: ${error.message}`;
    return;
  }
  $("camera").hidden = false;
  $("video").srcObject = stream;
  await $("video").play();
  $("take").focus();
  watch(stream);
});
$("close-camera").addEventListener("click", closeCamera);
$("take").addEventListener("click", async () => {
  const frame = await grab();
  if (frame) add([new File([frame], `camera ${new Date().toLocaleTimeString()}.png`, { type: frame.type })]);
});

function closeCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = undefined;
  $("camera").hidden = true;
  $("open-camera").focus();
}

/** The camera's picture as a file. */
async function grab() {
  const { videoWidth: width, videoHeight: height } = $("video");
  if (!width) return null;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  canvas.getContext("2d").drawImage($("video"), 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** Say what the camera sees until it is closed. */
async function watch(watched) {
  while (stream === watched) {
    const frame = await grab();
    if (frame) {
      const seen = await look(frame).then(
        ({ labels }) => labels.map(({ name, prob }) => `${name} ${percent(prob)}`).join(" · ") || "Nothing that it is sure of",
        (error) => error.message,
      );
      if ($("camera-text").textContent !== seen) $("camera-text").textContent = seen; // a screen reader reads each change
    }
    await painted();
  }
}
