// One session of the server, drawn. What the model and users say is put in as text, never as HTML.
const $ = (id) => document.getElementById(id);
const token = new URLSearchParams(location.hash.slice(1)).get("token") || "";
const headers = token ? { Authorization: `Bearer ${token}` } : {};
const ENDED = 4000;      // code of a socket that closes as all was told of a session that has ended
let session = null;      // {id, kind, seen, socket, state}
let turn = 0;            // counts what was asked for; what an earlier one still gets is given back
let peer = null;         // RTCPeerConnection
let stream = null;       // what the camera or the screen gives
let latencies = [];
let speaking = false;    // while an utterance is read aloud the next is shown as text only
let server = { hears: false, speaks: false };  // what the server does of speech itself

async function call(method, path, body) {
  const options = { method, headers: { ...headers } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const answer = await fetch(path, options);
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw Object.assign(new Error(told.error || answer.statusText), { status: answer.status });
  return told;
}

function status(text) { $("status").textContent = $("status").title = text; }

function count(items, one, many) { return `${items.length} ${items.length === 1 ? one : many}`; }

function ms(seconds) { return `${Math.round(seconds * 1000)} ms`; }

const NAMES = { sample: "Sample stream", file: "Video file", rtsp: "RTSP camera", push: "Pushed frames",
  webrtc: "This device's camera", screen: "This device's screen" };

async function begin() {
  const told = await call("GET", "v1/models");
  const kinds = told.sources.kinds.flatMap((kind) => kind === "webrtc"
    ? (navigator.mediaDevices ? ["webrtc", "screen"] : []) : [kind]).filter((kind) => kind !== "push");
  const order = ["sample", "webrtc", "screen", "file", "rtsp"];
  for (const kind of order.filter((kind) => kinds.includes(kind))) $("source").add(new Option(NAMES[kind], kind));
  list(told.sources.files);
  for (const mode of told.models[0].modes) $("mode").add(new Option(mode, mode));
  const { warning } = told.models[0];
  $("warning").textContent = warning && `Warning: ${warning}`;
  $("warning").hidden = !warning;
  server = told.speech;
  if (server.speaks) $("voice-label").hidden = false;
  showPlace();
  if (kinds.includes("sample")) await open();
  else status("choose a source");
}

// The videos that may be chosen.
function list(files) {
  const chosen = $("file").value;
  $("file").replaceChildren(...files.map((name) => new Option(name, name)));
  if (files.includes(chosen)) $("file").value = chosen;
}

function showPlace() {
  for (const [id, kind] of [["file", "file"], ["place", "rtsp"]]) {
    $(id).hidden = document.querySelector(`label[for=${id}]`).hidden = $("source").value !== kind;
  }
}

// What is watched goes on until there is something else to watch.
async function open() {
  const mine = ++turn;
  const kind = $("source").value;
  const source = { kind: kind === "screen" ? "webrtc" : kind };
  if (kind === "file") source.name = $("file").value;
  if (kind === "rtsp") source.url = $("place").value;
  status("opening");
  let given = null;
  let id = null;
  try {
    if (kind === "screen") given = await navigator.mediaDevices.getDisplayMedia({ video: true });
    if (kind === "webrtc") given = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 }, audio: server.hears });
    if (mine === turn) id = await make({ source, mode: $("mode").value });
    if (mine === turn) await close();
    if (mine !== turn) return await giveBack(given, id);
    stream = given;
    session = { id, kind: source.kind, seen: 0, socket: null, state: "live" };
    clear();
    if (stream) await sendCamera(mine);
    if (mine === turn) connect();
  } catch (error) {
    if (session?.id === id) await close();
    else await giveBack(given, id);
    if (mine !== turn) return;
    status(session && !session.closed ? `${error.message}; what was watched goes on` : error.message);
    say("wrong", error.message);
  }
}

// The id of a new session; where there are as many as may be, ours makes room for it.
async function make(asked) {
  const post = () => call("POST", "v1/sessions", asked);
  const told = await post().catch(async (error) => {
    if (error.status !== 429 || !session) throw error;
    await close();
    return post();
  });
  return told.session;
}

async function giveBack(given, id) {
  given?.getTracks().forEach((track) => track.stop());
  if (id) await call("DELETE", `v1/sessions/${id}`).catch(() => {});
}

async function sendCamera(mine) {
  const { id } = session;
  $("camera").srcObject = stream;
  $("camera").hidden = false;
  await $("camera").play();
  if (mine !== turn) return;
  const own = peer = new RTCPeerConnection();
  for (const track of stream.getTracks()) own.addTrack(track, stream);
  await own.setLocalDescription(await own.createOffer());
  if (own.iceGatheringState !== "complete") {
    await new Promise((done) => {
      own.addEventListener("icegatheringstatechange", () => own.iceGatheringState === "complete" && done());
      setTimeout(done, 3000);
    });
  }
  const { sdp, type } = own.localDescription;
  await own.setRemoteDescription(await call("POST", `v1/sessions/${id}/offer`, { sdp, type }));
}

function connect() {
  const own = session;
  const place = new URL(`v1/sessions/${own.id}/socket?after=${own.seen}`, location.href);
  place.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  place.hash = "";
  const socket = new WebSocket(place, token ? ["joyvl", `token.${token}`] : ["joyvl"]);
  own.socket = socket;
  socket.onopen = () => status(own.state);
  socket.onmessage = (message) => session === own && told(JSON.parse(message.data));
  socket.onclose = (event) => event.code === ENDED ? over(own) : again(own);
}

// A socket does not tell why it could not be opened; a request does.
async function again(own) {
  if (session !== own || own.closed) return;
  status("connection lost; trying again");
  await new Promise((done) => setTimeout(done, 1000));
  const error = await call("GET", `v1/sessions/${own.id}/events?after=${own.seen}`).then(() => null, (error) => error);
  if (session !== own || own.closed) return;
  if ([401, 403, 404].includes(error?.status)) over(own, error.message);
  else if (error) again(own);
  else connect();
}

function over(own, reason) {
  if (session !== own || own.closed) return;
  own.closed = true;
  status(reason ? `ended: ${reason}` : "ended");
}

async function close() {
  const old = session;
  session = null;
  if (peer) { peer.close(); peer = null; }
  if (stream) { stream.getTracks().forEach((track) => track.stop()); stream = null; }
  $("camera").hidden = $("picture").hidden = true;
  for (const id of ["second", "last", "mean", "p95", "cache"]) $(`m-${id}`).textContent = "–";
  $("m-dropped").textContent = "0";
  for (const id of ["caption", "tiers", "memory"]) $(id).textContent = "";
  if (!old) return;
  old.closed = true;
  old.socket?.close();
  await call("DELETE", `v1/sessions/${old.id}`).catch(() => {});
}

function clear() {
  for (const id of ["said", "strip", "tasks"]) $(id).replaceChildren();
  $("caption").textContent = "";
  latencies = [];
}

// Events

let shownAt = 0;    // the second of what the caption says
let asked = false;  // something was said since the last step

function told(event) {
  if (event.seq) session.seen = event.seq;
  switch (event.kind) {
    case "step": return step(event);
    case "query": asked = true; return say("user", event.text, event.by === "source" ? "the sample itself" : "you");
    case "task": return task(event);
    case "speech": return event.error ? say("wrong", event.error) : play(event.number);
    case "source":
      session.state = event.state === "live" ? "live" : `source ${event.state}${event.detail ? `: ${event.detail}` : ""}`;
      return status(session.state);
    case "engine": cell("wrong", event.second, event.error); return say("wrong", event.error, `${event.second} s`);
    case "dropped": $("m-dropped").textContent = Number($("m-dropped").textContent) + event.seconds; return;
    case "filtered": return say("wrong", `kept back: ${event.text}`, `${event.second} s`);
    case "reset":
      clear();
      return say("note", "All is forgotten: what was said, what it was asked to do, its memory and its tasks.");
    case "config": $("mode").value = event.mode; return;
    case "error": return say("wrong", event.error);
    case "closed": return over(session, event.reason);
  }
}

function step(event) {
  $("m-second").textContent = `${event.second} s`;
  cell(event.action, event.second, event.text);
  asked = false;
  if (event.second - shownAt >= 4) $("caption").textContent = "";
  latencies.push(event.latency);
  if (latencies.length > 600) latencies.shift();
  const ordered = [...latencies].sort((a, b) => a - b);
  $("m-last").textContent = ms(event.latency);
  $("m-mean").textContent = ms(latencies.reduce((a, b) => a + b, 0) / latencies.length);
  $("m-p95").textContent = ms(ordered[Math.min(ordered.length - 1, Math.floor(0.95 * ordered.length))]);
  if (event.action !== "silence" && event.text) {
    say(event.action, event.text, `${event.second} s, ${ms(event.latency)}`);
    $("caption").textContent = event.text;
    shownAt = event.second;
    aloud(event.text);
  }
}

function cell(kind, second, text) {
  const item = document.createElement("li");
  item.className = kind + (asked ? " query" : "");
  item.title = `${second} s${text ? `: ${text}` : ""}`;
  $("strip").append(item);
  while ($("strip").children.length > 120) $("strip").firstChild.remove();
}

function say(kind, text, when = "") {
  const item = document.createElement("li");
  item.className = kind;
  const small = document.createElement("small");
  small.textContent = when;
  item.append(text, small);
  $("said").append(item);
  while ($("said").children.length > 300) $("said").firstChild.remove();
  $("said").scrollTop = $("said").scrollHeight;
}

function task(event) {
  let item = $(`task-${event.task}`);
  if (!item) {
    item = document.createElement("li");
    item.id = `task-${event.task}`;
    $("tasks").append(item);
  }
  item.textContent = `Task ${event.task}: ${event.state}. ${event.text || event.error || ""} `;
  if (event.state === "started") {
    const button = document.createElement("button");
    button.textContent = "cancel";
    button.onclick = () => send({ kind: "cancel", task: event.task });
    item.append(button);
  }
  if (event.artifact) {
    const link = document.createElement("button");
    link.className = "artifact";
    link.textContent = "open what it made";
    link.onclick = () => artifact(event.artifact);
    item.append(link);
  }
}

// Shown without scripts and apart from this page, whatever it holds.
async function artifact(place) {
  const answer = await fetch(place.slice(1), { headers });
  const kind = answer.headers.get("Content-Type") || "";
  const text = await answer.text();
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "");
  frame.title = "What the background model made";
  frame.style.cssText = "width:100%;height:24rem;border:1px solid var(--line);background:#fff";
  const plain = text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
  frame.srcdoc = kind.startsWith("text/html") ? text : `<pre>${plain}</pre>`;
  $("tasks").append(frame);
}

function send(command) {
  if (session?.socket?.readyState !== WebSocket.OPEN) {
    if (!session) status("stopped; press Start anew first");
    return false;
  }
  session.socket.send(JSON.stringify(command));
  return true;
}

// Pictures and state, asked for once a second

async function look() {
  const own = session;
  if (!own || own.closed) return;
  if (own.kind !== "webrtc") {
    const answer = await fetch(`v1/sessions/${own.id}/frame`, { headers }).catch(() => null);
    const picture = answer?.ok ? await answer.blob().catch(() => null) : null;
    if (picture && session === own) {
      const old = $("picture").src;
      $("picture").src = URL.createObjectURL(picture);
      $("picture").hidden = false;
      if (old) URL.revokeObjectURL(old);
    }
  } else $("picture").hidden = true;
  const state = await call("GET", `v1/sessions/${own.id}`).catch(() => null);
  if (!state || session !== own) return;
  $("memory").textContent = state.memory || "Nothing yet.";
  const { long, mid, pinned } = state.tiers;
  const counted = [count(long, "block", "blocks"), count(mid, "summary", "summaries"), count(pinned, "instruction", "instructions")];
  $("tiers").textContent = `${counted.join(", ")}, chunk ${state.chunk + 1}`;
  $("m-dropped").textContent = state.source.dropped;
  $("m-cache").textContent = state.cache === null ? "in process" : `${Math.round(100 * state.cache)} %`;
}

// Speech, where the browser has it

const Recognition = window.SpeechRecognition || window.webkitSpeechRecognition;
if (Recognition) {
  $("speak").hidden = false;
  const ears = new Recognition();
  ears.onresult = (event) => send({ kind: "query", text: event.results[0][0].transcript });
  ears.onend = () => $("speak").setAttribute("aria-pressed", "false");
  $("speak").onclick = () => { $("speak").setAttribute("aria-pressed", "true"); ears.start(); };
}
if (window.speechSynthesis) $("voice-label").hidden = false;

async function play(number) {
  if (!$("voice").checked) return;
  const answer = await fetch(`v1/sessions/${session.id}/speech/${number}`, { headers });
  if (!answer.ok) return;
  const sound = new Audio(URL.createObjectURL(await answer.blob()));
  sound.onended = () => URL.revokeObjectURL(sound.src);
  await sound.play().catch(() => {});
}

function aloud(text) {
  if (server.speaks || !window.speechSynthesis || !$("voice").checked || speaking) return;
  const words = new SpeechSynthesisUtterance(text);
  speaking = true;
  words.onend = words.onerror = () => { speaking = false; };
  speechSynthesis.speak(words);
}

$("ask").onsubmit = (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  if (send({ kind: "query", text })) $("text").value = "";
};
$("source").onchange = () => {
  showPlace();
  if ($("source").value === "file") call("GET", "v1/models").then((told) => list(told.sources.files)).catch(() => {});
};
$("source-form").onsubmit = (event) => { event.preventDefault(); open(); };
$("mode").onchange = () => session && send({ kind: "config", mode: $("mode").value });
$("reset").onclick = () => send({ kind: "reset" });
$("stop").onclick = () => { turn += 1; close(); status("stopped"); };
window.addEventListener("pagehide", () => session
  && fetch(`v1/sessions/${session.id}`, { method: "DELETE", headers, keepalive: true }));
setInterval(look, 1000);
$("token").onsubmit = (event) => {
  event.preventDefault();
  history.replaceState(null, "", `#${new URLSearchParams({ token: $("given").value })}`);
  location.reload();
};
begin().catch((error) => {
  status(error.message);
  $("token").hidden = error.status !== 401;
});
