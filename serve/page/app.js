"use strict";

const byId = (id) => document.getElementById(id);
const LIVE = ["queued", "in_progress"];
const LEARNING = ["queued", "training"];
const SUBJECTS_MS = 5000;
// The server says when to ask again; bars that move less often than once a second together look
// stuck.
const LONGEST_WAIT_MS = 1000;
const cards = new Map();

function withKey() {
  const key = sessionStorage.getItem("key");
  return key ? { Authorization: `Bearer ${key}` } : {};
}

// Elements cannot send a key, so that what they show is fetched for them.
async function load(element, path) {
  const answer = await fetch(path, { headers: withKey() });
  if (!answer.ok) throw new Error(answer.statusText);
  element.src = URL.createObjectURL(await answer.blob());
}

async function call(method, path, body) {
  const options = { method, headers: withKey() };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options);
  const found = await answer.json();
  if (answer.status === 401) {
    byId("login").hidden = false;
    byId("form").hidden = true;
  }
  if (!answer.ok) {
    const error = new Error(found.error ? found.error.message : answer.statusText);
    error.isAnswer = answer.status < 500 && answer.status !== 429;
    throw error;
  }
  return { found, wait: Number(answer.headers.get("openai-poll-after-ms")) || 1000 };
}

function tell(text) {
  byId("refusal").textContent = text;
}

async function fillSubjects() {
  const { found } = await call("GET", "v1/subjects");
  const list = byId("subject");
  const isFirst = list.options.length === 1;
  const chosen = list.value;
  const options = found.data.map((subject) => {
    const state = subject.status === "ready" ? "" : `, ${subject.status}`;
    const option = new Option(`${subject.name || subject.id} (${subject.class_noun}${state})`, subject.id);
    option.disabled = subject.status !== "ready";
    option.subject = subject;
    return option;
  });
  list.replaceChildren(list.options[0], ...options);
  const first = found.data.find((subject) => subject.status === "ready");
  list.value = isFirst && first ? first.id : chosen;
  if (list.selectedIndex < 0) list.value = "";
  if (isFirst || list.value !== chosen) showSubject();
  // Those in training become ready while the page is open.
  if (found.data.some((subject) => LEARNING.includes(subject.status))) {
    setTimeout(() => fillSubjects().catch((error) => tell(error.message)), SUBJECTS_MS);
  }
}

function showSubject() {
  const subject = byId("subject").selectedOptions[0].subject;
  const pictures = Array.from({ length: subject ? subject.num_views : 0 }, (_, index) => {
    const picture = new Image();
    const path = `v1/subjects/${encodeURIComponent(subject.id)}/views/${index + 1}`;
    load(picture, path).catch(() => picture.remove());
    picture.alt = `${subject.id}, view ${index + 1}`;
    picture.addEventListener("error", () => picture.remove());
    return picture;
  });
  byId("views").replaceChildren(...pictures);
  const prompt = byId("prompt");
  if (!prompt.value || prompt.value === prompt.dataset.suggested) {
    prompt.value = `a video of a ${subject ? `[${subject.phrase}]` : "red car"} on a desk`;
    prompt.dataset.suggested = prompt.value;
  }
}

function cardOf(video) {
  let card = cards.get(video.id);
  if (card) return card;
  card = byId("clip").content.firstElementChild.cloneNode(true);
  card.querySelector(".prompt").textContent = video.prompt;
  card.querySelector(".cancel").addEventListener("click", () => {
    call("POST", `v1/videos/${video.id}/cancel`).then(({ found }) => show(found), (e) => tell(e.message));
  });
  card.querySelector(".delete").addEventListener("click", () => {
    call("DELETE", `v1/videos/${video.id}`).then(() => remove(video.id), (e) => tell(e.message));
  });
  cards.set(video.id, card);
  byId("clips").prepend(card);
  byId("empty").hidden = true;
  return card;
}

function remove(id) {
  cards.get(id)?.remove();
  cards.delete(id);
  byId("empty").hidden = cards.size > 0;
}

function statusText(video) {
  if (video.status === "queued") return `queued, number ${video.queue_position}`;
  if (video.status === "in_progress") return `step ${video.step} of ${video.steps}`;
  if (video.status === "failed") return `failed: ${video.error.message}`;
  if (video.status === "completed") return `${video.subject ?? "no subject"}, seed ${video.seed}`;
  return video.status;
}

function show(video) {
  const card = cardOf(video);
  const isLive = LIVE.includes(video.status);
  card.dataset.status = video.status;
  card.querySelector(".status").textContent = statusText(video);
  card.querySelector("progress").value = video.progress;
  card.querySelector("progress").hidden = !isLive;
  card.querySelector(".cancel").hidden = !isLive;
  const player = card.querySelector("video");
  if (video.status === "completed" && player.hidden) {
    player.hidden = false;
    load(player, `v1/videos/${video.id}/content`).catch((error) => tell(error.message));
  }
}

async function watch(video, wait) {
  show(video);
  while (LIVE.includes(video.status) && cards.has(video.id)) {
    const live = document.querySelectorAll("#clips progress:not([hidden])").length;
    await new Promise((resume) => setTimeout(resume, Math.min(wait, LONGEST_WAIT_MS * Math.max(1, live))));
    if (!cards.has(video.id)) return;
    try {
      ({ found: video, wait } = await call("GET", `v1/videos/${video.id}`));
    } catch (error) {
      // Only an answer ends the watch: a network or a server that is away comes back.
      if (error.isAnswer) throw error;
      wait = 2 * LONGEST_WAIT_MS;
      tell("The server does not answer; asking again.");
      continue;
    }
    tell("");
    if (cards.has(video.id)) show(video);
  }
}

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", byId("key").value.trim());
  location.reload();
});
byId("subject").addEventListener("change", showSubject);
byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  tell("");
  const body = { prompt: byId("prompt").value };
  if (byId("subject").value) body.subject = byId("subject").value;
  if (byId("seed").value) body.seed = Number(byId("seed").value);
  if (byId("steps").value) body.num_inference_steps = Number(byId("steps").value);
  call("POST", "v1/videos", body)
    .then(({ found, wait }) => watch(found, wait))
    .catch((error) => tell(error.message));
});

async function start() {
  const [models, videos] = await Promise.all([
    call("GET", "v1/models"),
    call("GET", "v1/videos?limit=20"),
    fillSubjects(),
  ]);
  byId("model").textContent = `Served model: ${models.found.data.map((m) => m.id).join(", ")}`;
  for (const video of videos.found.data.reverse()) watch(video, 500).catch((e) => tell(e.message));
}

start().catch((error) => tell(error.message));
