// What the page asks of the server: uploads, events, answers, frames, searches.

const UNREACHABLE = "The server cannot be reached. Is it still running?";
const KEY = "marc-key";

export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** Sends a key with every request from now on, until the window is closed. */
export function useKey(text) {
  sessionStorage.setItem(KEY, text);
}

/** What the server says of itself. */
export async function settings() {
  return (await request("page/settings")).json();
}

/** Uploads a file; `tell` is told what share of it has been sent. */
export function upload(file, tell, signal) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest(); // fetch cannot tell how much has been sent
    const body = new FormData();
    body.append("purpose", "user_data");
    body.append("file", file);
    call.open("POST", "v1/files");
    call.responseType = "json";
    for (const [name, value] of Object.entries(authorization())) call.setRequestHeader(name, value);
    call.upload.onprogress = (sent) => tell(sent.loaded / sent.total);
    call.onload = () => (call.status === 200 ? resolve(call.response) : reject(errorOf(call.response, call.status)));
    call.onerror = () => reject(new ServerError(UNREACHABLE, 0));
    call.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => call.abort());
    call.send(body);
  });
}

/** Removes an uploaded file and what was remembered of it. */
export async function remove(file) {
  await request(`v1/files/${encodeURIComponent(file)}`, { method: "DELETE" });
}

/** The events of a video; `tell` is told what share of it has been read. */
export async function events(file, question, tell, signal) {
  for await (const message of messages(await post("page/events", { file, question }, signal))) {
    if (message.events) return message;
    tell(message.share);
  }
  throw new ServerError(UNREACHABLE, 0);
}

/** Asks about a video; `tell` is told each piece of the output. Returns the record of the answer. */
export async function answer(file, question, options, tell, signal) {
  const content = [{ type: "file", file: { file_id: file } }, { type: "text", text: question }];
  const body = { messages: [{ role: "user", content }], stream: true, stream_options: { include_usage: true } };
  let record = null;
  for await (const message of messages(await post("v1/chat/completions", { ...body, marc: options }, signal))) {
    record = message.marc ?? record;
    const piece = message.choices[0]?.delta.content;
    if (piece) tell(piece);
  }
  if (!record) throw new ServerError(UNREACHABLE, 0);
  return record;
}

/** Pictures of a video at some times. */
export async function frames(file, seconds) {
  return (await (await post("page/frames", { file, seconds })).json()).pictures;
}

/** Events of some videos, and of the server's library, that fit a question. */
export async function search(question, files, k) {
  return (await post("page/search", { question, files, k })).json();
}

function authorization() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return request(path, { method: "POST", body: JSON.stringify(body), headers, signal });
}

async function request(path, options = {}) {
  const reply = await orUnreachable(fetch(path, { ...options, headers: { ...authorization(), ...options.headers } }));
  if (!reply.ok) throw errorOf(await reply.json().catch(() => null), reply.status);
  return reply;
}

function errorOf(reply, status) {
  return new ServerError(reply?.error?.message ?? `The server answered with the status ${status}.`, status);
}

/** What a stream of server-sent events holds. */
async function* messages(reply) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await orUnreachable(reader.read());
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.slice("data: ".length);
      if (data === "[DONE]") return;
      const message = JSON.parse(data);
      if (message.error) throw errorOf(message, reply.status);
      yield message;
    }
  }
}

async function orUnreachable(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(UNREACHABLE, 0);
  }
}
