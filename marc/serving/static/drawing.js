// Pieces of the page. Texts of users and servers become text nodes, never markup.

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 12;
const HEIGHT = 40;
const FEW = 60; // so many events have room for lines between them

/** An element with attributes and children; texts among these become text. */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** Seconds as people write them: 1:02:03.5. */
export function clock(seconds) {
  const tenths = Math.round(seconds * 10);
  const [hours, minutes, rest] = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60, (tenths % 600) / 10];
  const shown = rest % 1 ? rest.toFixed(1) : String(rest);
  const padded = rest < 10 ? `0${shown}` : shown;
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${padded}` : `${minutes}:${padded}`;
}

/** Draws events on a time line: as high as they fit the question, in another colour if they were retrieved. */
export function timeLine(svg, duration, events, choose) {
  svg.setAttribute("viewBox", `0 0 ${duration || 1} ${HEIGHT}`);
  const scores = events.map((event) => event.score).filter((score) => score !== null);
  const [least, most] = [Math.min(...scores), Math.max(...scores)];
  const height = ({ score }) => (score === null ? HEIGHT : HEIGHT * (0.2 + (0.8 * (score - least)) / (most - least || 1)));
  const bars = events.map((event, index) => {
    const bar = drawn("rect", {
      x: event.start,
      y: HEIGHT - height(event),
      width: event.end - event.start,
      height: height(event),
      class: event.isKept ? "kept" : "",
    });
    bar.addEventListener("click", () => choose(index));
    return bar;
  });
  svg.classList.toggle("few", events.length <= FEW);
  svg.replaceChildren(...bars);
}

/** A button with the key frame of an event. */
export function eventButton(event, index, choose) {
  const score = event.score === null ? "" : `score ${event.score.toFixed(2)}`;
  const button = element(
    "button",
    { type: "button", class: event.isKept ? "event kept" : "event", tabindex: index ? -1 : 0, title: event.text },
    element("img", { src: event.picture, alt: "", loading: "lazy", width: 160 }),
    element("span", {}, `Event ${index + 1} · ${clock(event.start)}–${clock(event.end)} `),
    element("span", { class: "score" }, [score, event.isKept ? "retrieved" : ""].filter(Boolean).join(" · ")),
  );
  button.addEventListener("click", choose);
  return button;
}

/** The frames of each merged grid: `[[number, [{ second, frame }, …]], …]`; a grid is made of two frames. */
export function groupsOf(seen) {
  const groups = new Map();
  seen.frame_seconds.forEach((second, frame) => {
    const group = seen.grid_groups[Math.floor(frame / 2)];
    if (group < 0) return; // nothing of it was kept
    groups.set(group, [...(groups.get(group) ?? []), { second, frame }]);
  });
  return [...groups];
}

/** Shows the frames that a model read, in order, by the merged grid in which each ended. */
export function showSeen(details, groups, seen) {
  const line = drawn("svg", { viewBox: `${seen.start} 0 ${seen.end - seen.start || 1} ${HEIGHT}`, class: "ticks" });
  line.setAttribute("preserveAspectRatio", "none");
  line.setAttribute("aria-hidden", "true");
  const width = (seen.end - seen.start) / 150;
  line.append(
    ...groups.flatMap(([group, frames]) =>
      frames.map(({ second }) => drawn("rect", { x: second, y: 0, width, height: HEIGHT, class: colour(group) })),
    ),
  );
  details.querySelector(".groups").before(line);
  details.querySelector(".groups").replaceChildren(...groups.map(groupItem));
}

function groupItem([group, frames]) {
  const stretch = `${clock(frames[0].second)} to ${clock(frames.at(-1).second)}`;
  const title = `Merged frame ${group + 1}: ${frames.length} frames, ${stretch}`;
  const images = frames.map(({ second, frame }) => {
    const time = clock(second);
    return element("img", { alt: `Frame at ${time}`, title: time, width: 80, height: 60, "data-frame": frame });
  });
  return element("li", { class: colour(group) }, element("p", {}, title), element("div", { class: "frames" }, ...images));
}

/** An event that was found, with a button that opens it. */
export function foundEvent(event, name, open) {
  const button = element("button", { type: "button" }, "Ask about this");
  button.setAttribute("aria-label", `Ask about this: ${name}, ${clock(event.start)} to ${clock(event.end)}`);
  button.addEventListener("click", open);
  const told = element(
    "div",
    {},
    element("p", {}, name),
    element("p", { class: "hint" }, `${clock(event.start)} to ${clock(event.end)} · score ${event.score.toFixed(2)}`),
    element("p", { class: "hint" }, event.text),
    button,
  );
  return element("li", {}, element("img", { src: event.picture, alt: "", width: 160 }), told);
}

const colour = (group) => `group group-${group % COLOURS}`;

function drawn(name, attributes) {
  return filled(document.createElementNS(SVG, name), attributes, []);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return made;
}
