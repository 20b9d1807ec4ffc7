// The page: what is on it, and what happens when somebody does something.

import * as server from "./server.js";
import { clock, element, eventButton, foundEvent, groupsOf, showSeen, timeLine } from "./drawing.js";

const VIDEOS = "marc-videos";
const KEPT = 100;
const MIB = 2 ** 20;
const FOUND = 8;

const at = (id) => document.getElementById(id);
const page = {
  settings: null,
  videos: JSON.parse(localStorage.getItem(VIDEOS) ?? "[]"), // { id, name, isLent }
  files: new Map(), // those of this window, by id: they can be played
  events: [],
  work: null, // the AbortController of an upload or of cutting
  asked: null, // that of a question
};

// Saying

function say(text) {
  at("status").textContent = text;
}

function complain(error) {
  const isCancelled = error.name === "AbortError";
  if (isCancelled) say("Cancelled.");
  at("problem").hidden = isCancelled;
  at("problem").textContent = isCancelled ? "" : error.message;
  at("key-form").hidden = error.status !== 401;
  if (error.status === 401) at("key").focus();
}

/** Has a function complain to the user. */
function told(action) {
  return async (happening) => {
    happening?.preventDefault?.();
    at("problem").hidden = true;
    try {
      await action(happening);
    } catch (error) {
      complain(error);
    }
  };
}

// Videos

const chosen = () => page.videos.find((video) => video.id === at("videos").value);

async function add(files) {
  for (const file of files) {
    const most = page.settings?.max_upload_mib ?? Infinity;
    if (file.size > most * MIB) {
      const size = Math.ceil(file.size / MIB);
      throw new Error(`${file.name} has ${size} MiB. This server takes files of at most ${most} MiB.`);
    }
    const sent = await working(`Uploading ${file.name}`, (tell, signal) => server.upload(file, tell, signal));
    page.files.set(sent.id, file);
    keep({ id: sent.id, name: file.name, isLent: false });
    await show(sent.id);
  }
}

function keep(video) {
  page.videos = [video, ...page.videos.filter((one) => one.id !== video.id)].slice(0, KEPT);
  listVideos(video.id);
}

function drop(id) {
  page.videos = page.videos.filter((one) => one.id !== id);
  page.files.delete(id);
  listVideos(page.videos[0]?.id ?? "");
  at("events").hidden = true;
  at("answers").replaceChildren();
}

function listVideos(id) {
  localStorage.setItem(VIDEOS, JSON.stringify(page.videos));
  at("videos").replaceChildren(...page.videos.map((one) => new Option(one.name, one.id, false, one.id === id)));
  at("chosen").hidden = page.videos.length === 0;
  at("forget").hidden = chosen()?.isLent ?? true;
}

/** Shows a video and its events, for which it is cut if need be. */
async function show(id) {
  at("videos").value = id;
  listVideos(id);
  play(page.files.get(id));
  at("events").hidden = true;
  at("answers").replaceChildren();
  setStretch(null);
  const { name } = chosen();
  try {
    const cut = (tell, signal) => server.events(id, "", tell, signal);
    const found = await working(`Cutting ${name} into events`, cut);
    showEvents(found);
    say(found.remark ?? `${name}: ${found.events.length} events.`);
  } catch (error) {
    if (error.status === 404) drop(id);
    throw error;
  }
}

function play(file) {
  const player = at("player");
  URL.revokeObjectURL(player.src);
  player.hidden = !file;
  if (file) player.src = URL.createObjectURL(file);
  else player.removeAttribute("src");
}

/** Does something that takes time and can be cancelled; whatever was being done before is. */
async function working(name, action) {
  page.work?.abort();
  const work = (page.work = new AbortController());
  at("work-name").textContent = name;
  at("work-share").removeAttribute("value");
  at("work").hidden = false;
  say(`${name} …`);
  try {
    return await action((share) => page.work === work && (at("work-share").value = share), work.signal);
  } finally {
    if (page.work === work) {
      page.work = null;
      if (at("work").contains(document.activeElement)) at("file").focus();
      at("work").hidden = true;
    }
  }
}

// Events

function showEvents({ events, duration, remark }) {
  page.events = events;
  at("events").hidden = false;
  at("events-note").textContent = remark ?? `${events.length} events in ${clock(duration)}.`;
  drawEvents(duration, []);
}

/** Draws the events, those in bold that were retrieved; the chosen one stays chosen. */
function drawEvents(duration, retrieved) {
  const isKept = (event) => retrieved.some((one) => one.start < event.end && event.start < one.end);
  const events = page.events.map((event) => ({ ...event, isKept: isKept(event) }));
  timeLine(at("time-line"), duration, events, (index) => focusEvent(index));
  const buttons = events.map((event, index) => eventButton(event, index, () => choose(index)));
  at("strip").replaceChildren(...buttons.map((button) => element("li", {}, button)));
  markChosen();
}

function focusEvent(index) {
  const buttons = [...at("strip").querySelectorAll("button")];
  const next = buttons[Math.min(Math.max(index, 0), buttons.length - 1)];
  buttons.forEach((button) => (button.tabIndex = button === next ? 0 : -1));
  next.focus();
  next.scrollIntoView({ block: "nearest", inline: "center" });
}

function moveInStrip(pressed) {
  const buttons = [...at("strip").querySelectorAll("button")];
  const index = buttons.indexOf(document.activeElement);
  const target = { ArrowLeft: index - 1, ArrowRight: index + 1, Home: 0, End: buttons.length - 1 }[pressed.key];
  if (index < 0 || target === undefined) return;
  pressed.preventDefault();
  focusEvent(target);
}

/** Asks about one event, or about all of the video if it is the chosen one already. */
function choose(index) {
  const event = page.events[index];
  const isChosen = Number(at("start").value) === event.start && Number(at("end").value) === event.end;
  setStretch(isChosen ? null : event);
  if (!at("player").hidden) at("player").currentTime = event.start;
  const stretch = `${clock(event.start)} to ${clock(event.end)}`;
  say(isChosen ? "Questions are about the whole video." : `Questions are about ${stretch}.`);
}

function setStretch(event) {
  at("start").value = event ? event.start : "";
  at("end").value = event ? event.end : "";
  markChosen();
}

function markChosen() {
  const [start, end] = [at("start"), at("end")].map((field) => (field.value === "" ? null : Number(field.value)));
  at("strip").querySelectorAll("button").forEach((button, index) => {
    const event = page.events[index];
    button.setAttribute("aria-pressed", String(event.start === start && event.end === end));
  });
}

// Questions

async function ask() {
  if (page.asked) return;
  const video = chosen();
  if (!video) {
    at("file").focus();
    throw new Error("Choose a video first.");
  }
  if (page.work) throw new Error("Wait until the video is there and cut into events, or cancel that.");
  const budgets = [chosenBudget()];
  if (at("compare").checked && budgets[0] !== "full") budgets.push("full");
  const cards = budgets.map(newCard);
  at("answers").replaceChildren(...cards);
  at("send").hidden = true;
  at("stop").hidden = false;
  say("Asking …");
  page.asked = new AbortController();
  try {
    const question = at("question").value;
    const runs = budgets.map((budget, index) => answerInto(cards[index], video, question, budget));
    const [records] = await Promise.all([Promise.all(runs), scoreEvents(video, question, runs[0]).catch(complain)]);
    say(verdict(records.filter(Boolean)));
  } finally {
    page.asked = null;
    const hadFocus = document.activeElement === at("stop");
    at("stop").hidden = true;
    at("send").hidden = false;
    if (hadFocus) at("send").focus();
  }
}

function chosenBudget() {
  const budget = at("budget").value;
  return budget === "tokens" ? `tokens:${at("tokens").value}` : budget;
}

function newCard(budget) {
  const card = at("answer-template").content.cloneNode(true).querySelector("article");
  const own = `Budget ${page.settings?.budget ?? "of the server"}`;
  card.querySelector("h3").textContent = { "": own, full: "Every token" }[budget] ?? `Budget ${budget}`;
  return card;
}

/** Asks at a budget and shows what comes; gives the record, or nothing if there is none. */
async function answerInto(card, video, question, budget) {
  const text = card.querySelector(".text");
  const options = budget ? { budget } : {};
  for (const name of ["start", "end"]) if (at(name).value !== "") options[name] = Number(at(name).value);
  text.setAttribute("aria-busy", "true");
  try {
    const tell = (piece) => text.append(piece);
    const record = await server.answer(video.id, question, options, tell, page.asked.signal);
    showAnswer(card, video, record);
    return record;
  } catch (error) {
    const isStopped = error.name === "AbortError";
    if (error.status === 401) complain(error);
    card.querySelector(".warnings").append(element("li", {}, isStopped ? "Stopped." : error.message));
    return null;
  } finally {
    text.removeAttribute("aria-busy");
  }
}

function showAnswer(card, video, record) {
  card.querySelector(".text").textContent = record.answer || "(no answer)";
  const figures = {
    "Visual tokens": `${record.visual_tokens_before} → ${record.visual_tokens_after}`,
    "Tokens of the video in the prompt": `${record.prompt_tokens_before} → ${record.prompt_tokens_after}`,
    "Frames read": record.frames,
    "Time to answer": `${record.seconds.total.toFixed(1)} s`,
  };
  for (const event of record.events) {
    const name = `Event ${clock(event.start)} to ${clock(event.end)}`;
    figures[name] = `score ${event.score.toFixed(2)}, ${event.frames} frames`;
  }
  const terms = Object.entries(figures).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]);
  card.querySelector(".figures").replaceChildren(...terms);
  if (record.output.trim() !== record.answer) {
    const output = element("details", {}, element("summary", {}, "The whole output"), element("pre", {}, record.output));
    card.querySelector(".figures").after(output);
  }
  card.querySelector(".warnings").replaceChildren(...record.warnings.map((warning) => element("li", {}, warning)));
  const seen = record.videos[0];
  if (seen?.frame_seconds.length) showGroups(card.querySelector(".seen"), video, seen);
}

/** Shows which frames were merged; their pictures come when somebody wants to see them. */
function showGroups(details, video, seen) {
  details.hidden = false;
  showSeen(details, groupsOf(seen), seen);
  const load = told(async () => {
    const pictures = await server.frames(video.id, seen.frame_seconds);
    details.querySelectorAll(".groups img").forEach((image) => (image.src = pictures[image.dataset.frame]));
  });
  details.addEventListener("toggle", load, { once: true });
}

/** Shows how well each event fits the question, and which were retrieved. */
async function scoreEvents(video, question, answer) {
  if (!page.events.length) return;
  const [found, record] = await Promise.all([
    server.events(video.id, question, () => {}, page.asked.signal),
    answer,
  ]);
  page.events = found.events;
  drawEvents(found.duration, record?.events ?? []);
}

function verdict(records) {
  if (records.length < 2) return records.length ? `Answer: ${records[0].answer}` : "There is no answer.";
  const [few, all] = records;
  const agree = few.answer === all.answer ? "The answers are equal" : "The answers differ";
  return `${agree}: ${few.visual_tokens_after} visual tokens, ${all.visual_tokens_after} without compression.`;
}

// Search

async function search() {
  say("Searching …");
  const { events, warnings } = await server.search(at("wanted").value, page.videos.map((one) => one.id), FOUND);
  const name = (event) => page.videos.find((one) => one.id === event.file)?.name ?? event.name;
  const items = events.map((event) => foundEvent(event, name(event), told(() => open(event, name(event)))));
  at("found").replaceChildren(...items);
  say([`${events.length} events found.`, ...warnings].join(" "));
}

async function open(event, name) {
  if (!page.videos.some((one) => one.id === event.file)) keep({ id: event.file, name, isLent: true });
  if (chosen()?.id !== event.file || at("events").hidden) await show(event.file);
  setStretch(event);
  at("question").focus();
  say(`Questions are about ${clock(event.start)} to ${clock(event.end)} of ${name}.`);
}

// What happens when

function listen() {
  at("file").addEventListener("change", told(() => {
    const files = [...at("file").files];
    at("file").value = ""; // else the same file could not be chosen again
    return add(files);
  }));
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (dragged) => dragged.preventDefault());
  at("drop").addEventListener("drop", told((dropped) => add([...dropped.dataTransfer.files])));
  at("work-cancel").addEventListener("click", () => page.work?.abort());
  at("videos").addEventListener("change", told(() => show(at("videos").value)));
  at("forget").addEventListener("click", told(async () => {
    const { id, name } = chosen();
    await server.remove(id);
    drop(id);
    say(`${name} was removed.`);
    at("file").focus();
  }));
  at("player").addEventListener("error", () => (at("player").hidden = true));
  at("strip").addEventListener("keydown", moveInStrip);
  for (const name of ["start", "end"]) at(name).addEventListener("input", markChosen);
  at("budget").addEventListener("change", () => (at("tokens-field").hidden = at("budget").value !== "tokens"));
  at("ask").addEventListener("submit", told(ask));
  at("question").addEventListener("keydown", (pressed) => {
    if (pressed.key !== "Enter" || pressed.shiftKey) return;
    pressed.preventDefault();
    at("ask").requestSubmit();
  });
  at("stop").addEventListener("click", () => page.asked?.abort());
  at("search").addEventListener("submit", told(search));
  at("key-form").addEventListener("submit", told(async () => {
    server.useKey(at("key").value);
    at("key-form").hidden = true;
    await begin();
  }));
}

async function begin() {
  page.settings = await server.settings();
  const { model, budget, has_library, max_upload_mib } = page.settings;
  at("model").textContent = model;
  at("budget").options[0].text = `the server's own: ${budget}`;
  at("limit").textContent = `At most ${max_upload_mib} MiB. The file is sent to this server only.`;
  if (has_library) at("places").textContent = "your videos and the library";
  listVideos(page.videos[0]?.id ?? "");
  if (page.videos.length) await show(page.videos[0].id);
}

listen();
told(begin)();
