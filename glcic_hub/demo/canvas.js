/*
 * The demo's canvas: a photograph's small copy is painted on, the strokes go to the server, and what it completed comes back.
 *
 * Gradio runs it where gr.HTML puts canvas.html; gradio_config says where the server is and how its functions are
 * numbered. app.py adds LIMITS.
 */
/* global LIMITS */
"use strict";

const PAINT = "rgb(255, 64, 64)";
const PAINT_OPACITY = 0.55;
const CANCELLED = "cancelled"; // why work ended, where nobody wants to hear of it
const THUMBNAIL_SIDE = 112; // twice what is seen, for dense screens
const NOTE_SECONDS = 10; // notes go by themselves then, errors do not
const MAX_ZOOM = 32; // pixels of the screen to one of the copy
const KEYBOARD_STEP = 4; // pixels of the screen that an arrow key moves the brush by; five times as many with Shift

/** Makes a canvas that is not on the page. */
function makeLayer(width, height) {
  return Object.assign(document.createElement("canvas"), { width, height });
}

function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

function bitmapOf(base64) {
  return createImageBitmap(new Blob([bytesOf(base64)]));
}

/** The paint of a mask in base64, white = paint, as a layer. */
async function paintOf(base64) {
  const bitmap = await bitmapOf(base64);
  const layer = Object.assign(makeLayer(bitmap.width, bitmap.height), { packed: base64 });
  const context = layer.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const image = context.getImageData(0, 0, layer.width, layer.height);
  for (let place = 0; place < image.data.length; place += 4) {
    const marked = image.data[place] > 127;
    image.data.set([255, 64, 64, marked ? 255 : 0], place);
  }
  context.putImageData(image, 0, 0);
  return layer;
}

/** Packs what is opaque in a layer as a PNG of one bit a pixel, in base64. */
async function packMask(layer) {
  const { width, height } = layer;
  const pixels = layer.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, width, height).data;
  const stride = 1 + Math.ceil(width / 8); // each row begins with its filter, none
  const rows = new Uint8Array(stride * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (pixels[4 * (y * width + x) + 3] > 127) rows[y * stride + 1 + (x >> 3)] |= 128 >> (x & 7);
    }
  }
  const deflated = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header[8] = 1; // bit a pixel, grey
  const parts = [
    new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]),
    ...chunk("IHDR", header),
    ...chunk("IDAT", new Uint8Array(await new Response(deflated).arrayBuffer())),
    ...chunk("IEND", new Uint8Array(0)),
  ];
  let binary = "";
  for (const byte of new Uint8Array(await new Blob(parts).arrayBuffer())) binary += String.fromCharCode(byte);
  return btoa(binary);
}

/** A PNG's chunk: length, name, content, checksum. */
function chunk(name, content) {
  const body = new Uint8Array(4 + content.length);
  body.set([...name].map((letter) => letter.charCodeAt(0)));
  body.set(content, 4);
  let sum = -1;
  for (const byte of body) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  const number = (value) => new Uint8Array([value >>> 24, value >>> 16, value >>> 8, value]);
  return [number(content.length), body, number(~sum)];
}

/** Draws a mark, which paints or erases, on a layer of paint. */
function drawMark(context, mark) {
  context.save();
  if (mark.inverts) {
    context.globalCompositeOperation = "xor";
    context.fillStyle = PAINT;
    context.fillRect(0, 0, context.canvas.width, context.canvas.height);
  } else if (mark.layer) {
    context.drawImage(mark.layer, 0, 0);
  } else {
    drawStroke(context, mark, 0);
  }
  context.restore();
}

/** Draws a stroke from one of its points on. */
function drawStroke(context, { erases, size, points }, begin) {
  context.globalCompositeOperation = erases ? "destination-out" : "source-over";
  context.strokeStyle = PAINT;
  context.lineWidth = size;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...points[begin]);
  for (const point of points.slice(begin)) context.lineTo(...point);
  context.stroke();
}

/** What the server does, by the names of its functions; each call can be cancelled. */
class Server {
  constructor() {
    const config = window.gradio_config;
    this.api = config.root + (config.api_prefix ?? "/gradio_api");
    this.numbers = new Map(config.dependencies.map((one) => [one.api_name, one.id]));
  }

  /** Where a file of the server can be had. */
  addressOf(path) {
    return `${this.api}/file=${path.split("/").map(encodeURIComponent).join("/")}`;
  }

  /** Uploads a file; its path on the server. */
  upload(file, { signal, onProgress }) {
    return new Promise((resolve, reject) => {
      const form = new FormData();
      form.append("files", file, file.name || "photograph.png");
      const request = new XMLHttpRequest();
      request.open("POST", `${this.api}/upload`);
      request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
      request.onload = () => {
        if (request.status === 200) resolve(JSON.parse(request.responseText)[0]);
        else if (request.status === 413) reject(new Error(tooLarge(file)));
        else reject(new Error("The file could not be uploaded. Try again."));
      };
      request.onerror = () => reject(new Error("The server cannot be reached. Try again."));
      signal.addEventListener("abort", () => request.abort());
      request.onabort = () => reject(signal.reason);
      request.send(form);
    });
  }

  /** Calls a function; its answer, of which one hears while others are served first. */
  async call(name, data, { signal, onWait }) {
    const session = crypto.getRandomValues(new Uint32Array(4)).join("");
    const number = this.numbers.get(name);
    const post = (path, body) =>
      fetch(this.api + path, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      });
    let joined;
    try {
      joined = await post("/queue/join", { data: [data], fn_index: number, session_hash: session });
    } catch {
      throw new Error("The server cannot be reached. Your strokes are kept; try again.");
    }
    signal.throwIfAborted();
    if (joined.status === 503) throw new Error("Many people are using this now. Try again in a minute.");
    if (!joined.ok) throw new Error("The server did not take this. Reload the page.");
    const { event_id } = await joined.json();
    const events = new EventSource(`${this.api}/queue/data?session_hash=${session}`);
    let waiting; // says so unless one's turn comes at once
    try {
      return await new Promise((resolve, reject) => {
        signal.addEventListener("abort", () => {
          post("/cancel", { session_hash: session, fn_index: number, event_id }).catch(() => {});
          reject(signal.reason);
        });
        events.onerror = () => reject(new Error("The connection was lost. Your strokes are kept; try again."));
        events.onmessage = ({ data }) => {
          const message = JSON.parse(data);
          clearTimeout(waiting);
          if (message.msg === "estimation") waiting = setTimeout(() => onWait(message.rank + 1), 300);
          else if (message.msg === "process_starts") onWait(0);
          else if (message.msg === "unexpected_error") reject(new Error("The server failed. Try again."));
          else if (message.msg === "process_completed" && message.success) resolve(message.output.data[0]);
          else if (message.msg === "process_completed")
            reject(new Error(message.output.error ?? "The server failed. Try again."));
        };
      });
    } finally {
      clearTimeout(waiting);
      events.close();
    }
  }
}

/**
 * A photograph, and what was done to it: states, each of marks that are not yet completed and steps that are.
 *
 * What the server said of it is `told`; `image` and `paint` are layers of its copy as it is now, drawn while it is shown.
 */
class Photo {
  constructor(told, original, states, at) {
    Object.assign(this, { told, original, states, at });
    this.width = original.width;
    this.height = original.height;
    this.image = null;
    this.paint = null;
  }

  /** Makes one of what the server said of it, or of what `plain` kept. */
  static async open({ told, states, at }) {
    const decoded = new Map(); // states have most in common
    const once = (packed, decode) => decoded.get(packed) ?? decoded.set(packed, decode(packed)).get(packed);
    const first = { marks: told.strokes ? [{ packed: told.strokes }] : [], steps: [] };
    const all = states ?? [first];
    for (const state of all) {
      for (const mark of state.marks) if (mark.packed) mark.layer = await once(mark.packed, paintOf);
      for (const part of state.steps.flatMap(({ parts }) => parts)) part.bitmap = await once(part.image, bitmapOf);
    }
    return new Photo(told, await bitmapOf(told.preview), all, at ?? 0);
  }

  /** All of it, without what is drawn, which can be made anew. */
  get plain() {
    const states = this.states.map(({ marks, steps }) => ({
      marks: marks.map(({ layer, ...mark }) => (layer ? { packed: layer.packed } : mark)),
      steps: steps.map(({ name, parts }) => ({ name, parts: parts.map(({ bitmap, ...part }) => part) })),
    }));
    return { told: this.told, states, at: this.at };
  }

  get now() {
    return this.states[this.at];
  }

  /** Goes to a new state, which can be undone. */
  commit(state) {
    this.states = [...this.states.slice(0, this.at + 1), { ...this.now, ...state }];
    this.at = this.states.length - 1;
  }

  canGo(by) {
    return this.at + by >= 0 && this.at + by < this.states.length;
  }

  /** The numbers of the states in which a step had just been done, and of the first. */
  get milestones() {
    const done = (number) => this.states[number]?.steps.length ?? -1;
    return [...this.states.keys()].filter((number) => done(number) > done(number - 1));
  }

  /** Draws a state, without its marks, on a layer. */
  drawState({ steps }, layer) {
    const context = layer.getContext("2d");
    context.clearRect(0, 0, this.width, this.height);
    context.drawImage(this.original, 0, 0);
    for (const { left, top, bitmap } of steps.flatMap((step) => step.parts)) {
      if (this.told.transparent) context.clearRect(left, top, bitmap.width, bitmap.height);
      context.drawImage(bitmap, left, top);
    }
    return layer;
  }

  /** Draws its layers anew. */
  draw() {
    this.image ??= makeLayer(this.width, this.height);
    this.paint ??= makeLayer(this.width, this.height);
    this.drawState(this.now, this.image);
    const paint = this.paint.getContext("2d", { willReadFrequently: true });
    paint.clearRect(0, 0, this.width, this.height);
    for (const mark of this.now.marks) drawMark(paint, mark);
  }

  /** What the server needs to know of it. */
  async asked(margin) {
    this.draw();
    const steps = this.now.steps.map((step) => step.name);
    return { photo: this.told.photo, steps, strokes: await packMask(this.paint), margin };
  }
}

/** What the page is doing, kept in the browser by tab for as long as the server has the photograph. */
class Memory {
  static NAME = "glcic-demo";

  constructor() {
    this.opened = new Promise((resolve, reject) => {
      const request = indexedDB.open(Memory.NAME, 1);
      request.onupgradeneeded = () => request.result.createObjectStore("sessions");
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
    this.key = JSON.parse(sessionStorage.getItem(Memory.NAME)); // when the photograph was opened, and a number
  }

  async ask(use) {
    const store = (await this.opened).transaction("sessions", "readwrite").objectStore("sessions");
    const request = use(store);
    return new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }

  get all() {
    return IDBKeyRange.bound(this.key, [...this.key, Number.POSITIVE_INFINITY]);
  }

  /** Begins anew, for other photographs. */
  begin() {
    if (this.key) this.ask((store) => store.delete(this.all));
    this.key = [Date.now(), ...crypto.getRandomValues(new Uint32Array(1))];
    sessionStorage.setItem(Memory.NAME, JSON.stringify(this.key));
  }

  keep(number, plain) {
    return this.ask((store) => store.put(plain, [...this.key, number]));
  }

  /** What was kept before the page was loaded. */
  async recall() {
    await this.ask((store) => store.delete(IDBKeyRange.upperBound([Date.now() - LIMITS.seconds * 1000])));
    return this.key ? this.ask((store) => store.getAll(this.all)) : [];
  }
}

function tooLarge(file) {
  return `${file.name} has ${Math.ceil(file.size / 1e6)} MB, and at most ${LIMITS.megabytes} are taken. Make it smaller, or save it as JPEG.`;
}

/** What is said of a file that need not be uploaded to be refused. */
function refusal(file) {
  if (file.size > LIMITS.megabytes * 1e6) return tooLarge(file);
  return file.size ? null : `${file.name} is empty; it may not have been copied or downloaded as a whole.`;
}

function secondsSince(begin) {
  return ((performance.now() - begin) / 1000).toFixed(1);
}

/** The files that were dropped, those in folders too. */
async function filesOf({ items }) {
  const read = async (entry) => {
    if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
    const reader = entry.createReader();
    const entries = [];
    for (let more; more?.length !== 0; entries.push(...more)) {
      more = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred at a time
    }
    const files = (await Promise.all(entries.map(read))).flat();
    return files
      .filter(({ type }) => type.startsWith("image/"))
      .sort((one, other) => one.name.localeCompare(other.name));
  };
  const entries = [...items]
    .filter(({ kind }) => kind === "file")
    .map((item) => item.webkitGetAsEntry() ?? item.getAsFile());
  return (await Promise.all(entries.map((entry) => (entry instanceof File ? [entry] : read(entry))))).flat();
}

/** Makes what is in an element, canvas.html, work. */
function openEditor(element) {
  const root = element.querySelector(".editor");
  const find = (selector) => root.querySelector(selector);
  const button = (name) => find(`[data-do=${name}]`);
  const view = find(".stage canvas");
  const screen = view.getContext("2d");
  const sizeSlider = find(".bottom > .size input");
  const server = new Server();

  let photos = []; // those that are open
  let photo = null; // the one that is shown
  let strip = []; // those of which there are thumbnails
  let history = []; // the shown one's states of which there are
  let job = null; // what the server is doing for us: an AbortController
  let tool = "brush";
  let stroke = null; // that is being painted
  let comparing = false;
  let spaceHeld = false;
  let place = { scale: 1, x: 0, y: 0, fitted: true }; // of the photograph's copy on the screen
  let brush = null; // where the brush is on the screen; null where it is not seen
  let keyboardDown = false; // the brush is down, by keyboard
  const pointers = new Map(); // fingers and buttons that are down
  let gesture = null; // of two fingers, or a drag that pans

  let memory = null; // not where the browser keeps nothing

  const option = (name) => find(`[name=${name}]`);
  const margin = () => option("margin").valueAsNumber;

  // What is seen

  function resize() {
    const { width, height } = find(".stage").getBoundingClientRect();
    view.width = Math.round(width * devicePixelRatio);
    view.height = Math.round(height * devicePixelRatio);
    if (place.fitted) fit();
    else draw();
  }

  function fit() {
    if (!photo) return;
    const width = view.width / devicePixelRatio;
    const height = view.height / devicePixelRatio;
    const room = Math.min(width, height) < 500 ? 6 : 18;
    const scale = Math.min((width - 2 * room) / photo.width, (height - 2 * room) / photo.height, 4);
    place = {
      scale,
      x: (width - scale * photo.width) / 2,
      y: (height - scale * photo.height) / 2,
      fitted: true,
    };
    draw();
  }

  /** Zooms by a factor about a point of the screen, which stays where it is. */
  function zoom(factor, x = view.clientWidth / 2, y = view.clientHeight / 2) {
    if (!photo) return;
    const scale = Math.min(Math.max(place.scale * factor, 32 / Math.max(photo.width, photo.height)), MAX_ZOOM);
    const by = scale / place.scale;
    place = { scale, x: x - by * (x - place.x), y: y - by * (y - place.y), fitted: false };
    draw();
  }

  let awaited = false;
  function draw() {
    if (!awaited) requestAnimationFrame(drawNow);
    awaited = true;
  }

  function drawNow(time) {
    awaited = false;
    screen.setTransform(1, 0, 0, 1, 0, 0);
    screen.clearRect(0, 0, view.width, view.height);
    if (!photo) return;
    const { scale, x, y } = place;
    if (photo.told.transparent) drawSquares();
    const dense = devicePixelRatio * scale;
    screen.setTransform(dense, 0, 0, dense, devicePixelRatio * x, devicePixelRatio * y);
    screen.imageSmoothingEnabled = dense < 4;
    screen.imageSmoothingQuality = "high";
    screen.drawImage(comparing ? photo.original : photo.image, 0, 0);
    if (!comparing) {
      screen.globalAlpha = job ? PAINT_OPACITY * (0.75 + 0.25 * Math.cos(time / 250)) : PAINT_OPACITY;
      screen.drawImage(photo.paint, 0, 0);
      screen.globalAlpha = 1;
    }
    screen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    if (brush && !comparing) drawBrush();
    const percent = (100 * scale * photo.width) / photo.told.width;
    const shown = `${percent < 10 ? percent.toFixed(1) : Math.round(percent)} %`;
    button("fit").firstChild.textContent = shown;
    button("fit").setAttribute("aria-label", `${shown}, fit the window`);
    if (job && (photo.now.marks.length || stroke)) draw(); // the strokes pulse
  }

  /** Squares behind what is transparent. */
  function drawSquares() {
    const { scale, x, y } = place;
    screen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    screen.save();
    screen.beginPath();
    screen.rect(x, y, scale * photo.width, scale * photo.height);
    screen.clip();
    screen.fillStyle = "#fff";
    screen.fillRect(0, 0, view.width, view.height);
    screen.fillStyle = "#d4d4d4";
    for (let row = 0; row * 12 < view.clientHeight; row++) {
      for (let column = row % 2; column * 12 < view.clientWidth; column += 2)
        screen.fillRect(column * 12, row * 12, 12, 12);
    }
    screen.restore();
  }

  function drawBrush() {
    screen.beginPath();
    screen.arc(brush.x, brush.y, sizeSlider.valueAsNumber / 2, 0, 2 * Math.PI);
    screen.lineWidth = 3;
    screen.strokeStyle = "rgb(0 0 0 / .55)";
    screen.stroke();
    screen.lineWidth = 1.25;
    screen.strokeStyle = "#fff";
    screen.stroke();
  }

  /** Draws the photograph and the paint anew, as the state says, and keeps that. */
  function render() {
    photo.draw();
    remember();
    showState();
    draw();
  }

  function remember(one = photo) {
    memory?.keep(photos.indexOf(one), one.plain).catch(() => {}); // its room is full: the session ends with the page
  }

  /** Goes on from what was done before the page was loaded, as far as the server has the photographs still. */
  async function restore() {
    memory = new Memory();
    const kept = (await memory.recall()).map(async (plain) => {
      const { ok } = await fetch(server.addressOf(plain.told.photo), { method: "HEAD" });
      return ok ? [await Photo.open(plain)] : [];
    });
    const found = (await Promise.all(kept)).flat();
    if (!found.length || photo || job) return;
    photos = found;
    show(photos[0]);
    say("Your photograph and what you did are back.");
  }

  /** Enables what can be pressed. */
  function showState() {
    root.classList.toggle("empty", !photo);
    const idle = photo && !job;
    button("undo").disabled = !idle || !photo.canGo(-1);
    button("redo").disabled = !idle || !photo.canGo(1);
    button("compare").disabled = !photo?.now.steps.length;
    button("download").disabled = !photo;
    for (const name of ["select", "mask", "invert", "remove", "same-for-all", "remove-all"])
      button(name).disabled = !idle;
    find(".progress").hidden = !job;
    root.setAttribute("aria-busy", Boolean(job));
    const { name, width, height } = photo?.told ?? {};
    find(".name").textContent = photo ? `${name} · ${width}×${height}` : "";
    view.setAttribute("aria-label", photo ? `${name}, ${width} by ${height} pixels` : "Photograph");
    showStrip();
    showHistory();
  }

  /** The photographs that are open, where there are several. */
  function showStrip() {
    find(".strip").hidden = find("[data-save=all]").hidden = photos.length < 2;
    const thumbnails = find(".photographs");
    if (strip.length !== photos.length || strip.some((one, number) => one !== photos[number])) {
      strip = [...photos];
      thumbnails.replaceChildren(
        ...strip.map((one) => makeThumbnail(one.original, () => photo !== one && !job && show(one))),
      );
    }
    for (const [number, thumbnail] of [...thumbnails.children].entries()) {
      const { told, now } = photos[number];
      thumbnail.setAttribute("aria-pressed", photos[number] === photo);
      const what = now.steps.length ? ", completed" : now.marks.length ? ", painted on" : "";
      thumbnail.setAttribute("aria-label", `${number + 1}: ${told.name}${what}`);
      thumbnail.dataset.done = now.steps.length > 0;
    }
  }

  /** The photograph as it was, and after each completion. */
  function showHistory() {
    const numbers = photo?.milestones ?? [];
    const list = find(".history");
    list.hidden = numbers.length < 2;
    const drawn = numbers.map((number) => photo.states[number]);
    if (history.length !== drawn.length || history.some((state, place) => state !== drawn[place])) {
      history = drawn;
      const layer = photo && makeLayer(photo.width, photo.height);
      list.replaceChildren(
        ...drawn.map((state) => makeThumbnail(photo.drawState(state, layer), () => jump(photo.states.indexOf(state)))),
      );
    }
    for (const [place, thumbnail] of [...list.children].entries()) {
      const isNow = photo.at >= numbers[place] && !(photo.at >= numbers[place + 1]);
      thumbnail.setAttribute("aria-pressed", isNow);
      thumbnail.setAttribute("aria-label", place ? `After removal ${place}` : "As it was");
    }
  }

  /** A button with a small image, the middle of a layer or bitmap. */
  function makeThumbnail(image, press) {
    const thumbnail = document.createElement("button");
    thumbnail.type = "button";
    const layer = makeLayer(THUMBNAIL_SIDE, THUMBNAIL_SIDE);
    const scale = THUMBNAIL_SIDE / Math.min(image.width, image.height);
    const [width, height] = [scale * image.width, scale * image.height];
    const context = layer.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(image, (layer.width - width) / 2, (layer.height - height) / 2, width, height);
    thumbnail.append(layer);
    thumbnail.onclick = press;
    return thumbnail;
  }

  // What there is to say

  function say(text, isError = false) {
    const notice = document.createElement("div");
    notice.className = isError ? "notice error" : "notice";
    notice.setAttribute("role", isError ? "alert" : "status");
    const words = document.createElement("span");
    words.textContent = text;
    const dismiss = document.createElement("button");
    dismiss.type = "button";
    dismiss.setAttribute("aria-label", "Dismiss");
    dismiss.innerHTML = '<svg viewBox="0 0 24 24"><path d="m6 6 12 12M18 6 6 18"/></svg>';
    dismiss.onclick = () => notice.remove();
    notice.append(words, dismiss);
    if (!isError) setTimeout(() => notice.remove(), NOTE_SECONDS * 1000);
    find(".notices").replaceChildren(notice);
  }

  function sayNothing() {
    find(".notices").replaceChildren();
  }

  /** Works, one piece at a time, while the page says what is done; what failed comes back, or CANCELLED. */
  async function work(doing, function_) {
    job?.abort(CANCELLED);
    const mine = new AbortController();
    job = mine;
    const show = (text) => {
      if (job === mine) find(".progress span").textContent = text;
    };
    const told = {
      signal: mine.signal,
      onProgress: (share) => show(share < 1 ? `Uploading, ${Math.round(100 * share)} %` : doing),
      onWait: (before) => show(before ? `Waiting: ${before} before you` : doing),
    };
    show(doing);
    sayNothing();
    showState();
    draw();
    try {
      await function_(told);
      return null;
    } catch (error) {
      return mine.signal.aborted ? CANCELLED : error.message;
    } finally {
      if (job === mine) job = null;
      showState();
      draw();
    }
  }

  function sayFailure(failure) {
    if (failure !== CANCELLED) say(failure, true);
  }

  function cancel() {
    if (!job) return;
    job.abort(CANCELLED);
    job = null;
    say("Cancelled.");
    showState();
    draw();
  }

  // What is done

  function commit(state) {
    photo.commit(state);
    render();
  }

  function mark(one) {
    commit({ marks: [...photo.now.marks, one] });
  }

  function go(by) {
    if (photo?.canGo(by)) jump(photo.at + by);
  }

  function jump(number) {
    if (job || stroke) return;
    photo.at = number;
    sayNothing();
    render();
  }

  /** Opens photographs in place of those that are open; what is refused is said. */
  async function open(files) {
    const failures = files.length > LIMITS.photos ? [`At most ${LIMITS.photos} photographs are taken at a time.`] : [];
    const opened = [];
    for (const [number, file] of files.slice(0, LIMITS.photos).entries()) {
      const doing = files.length > 1 ? `Opening ${number + 1} of ${files.length}` : "Opening";
      const failure =
        refusal(file) ??
        (await work(doing, async (told) => {
          const path = await server.upload(file, told);
          const answer = await server.call("open_photograph", { photo: path }, told);
          opened.push(await Photo.open({ told: { ...answer, name: file.name } }));
        }));
      if (failure === CANCELLED) return;
      if (failure) failures.push(files.length > 1 ? `${file.name}: ${failure}` : failure);
      else if (opened.length === 1) showNew(opened);
      else remember(opened.at(-1));
    }
    if (photo) showState();
    if (failures.length) say(failures.join(" "), true);
  }

  async function openSample(name) {
    const failure = await work("Opening", async (told) =>
      showNew([await Photo.open({ told: await server.call("open_sample", { name }, told) })]),
    );
    if (failure) sayFailure(failure);
    else await remove();
  }

  function showNew(opened) {
    memory?.begin();
    photos = opened;
    show(opened[0]);
  }

  function show(one) {
    if (photo && photo !== one) photo.image = photo.paint = null; // which take much
    photo = one;
    const same = photo.told.suffix.slice(1).replace("jpg", "jpeg").toUpperCase();
    find("[data-save=same]").hidden = same === "PNG";
    find(".format").textContent = same;
    find(".format-note").textContent =
      same === "JPEG" ? "As the photograph was; JPEG changes every pixel a little" : "As the photograph was";
    root.classList.remove("empty");
    sayNothing();
    render();
    resize();
    fit();
    view.focus({ preventScroll: true, focusVisible: false });
  }

  /** Completes what is painted over on a photograph; what there is to note. */
  async function complete(one, told) {
    const options = { detail: option("detail").checked, blend: option("blend").checked, model: option("model").value };
    const answer = await server.call("remove", { ...(await one.asked(margin())), ...options }, told);
    const decode = async (part) => ({ ...part, bitmap: await bitmapOf(part.image) });
    const parts = await Promise.all(answer.parts.map(decode));
    told.signal.throwIfAborted();
    one.commit({ marks: [], steps: [...one.now.steps, { name: answer.step, parts }] });
    if (one === photo) render();
    else one.image = one.paint = null;
    remember(one);
    return answer.notes;
  }

  async function remove() {
    if (!photo || job) return;
    if (!photo.now.marks.length) return say("Paint over what should go, then press Remove.");
    const begin = performance.now();
    let notes = [];
    const failure = await work("Removing", async (told) => {
      notes = await complete(photo, told);
    });
    if (failure) return sayFailure(failure);
    const { width, height } = photo.told;
    say([`Removed in ${secondsSince(begin)} s. ${width}×${height}, everything else untouched.`, ...notes].join(" "));
  }

  /** Completes all photographs that are painted on. */
  async function removeAll() {
    const painted = photos.filter((one) => one.now.marks.length);
    if (!painted.length) return say("Paint over what should go, on one or several of them.");
    const begin = performance.now();
    for (const [number, one] of painted.entries()) {
      const failure = await work(`Removing, ${number + 1} of ${painted.length}`, (told) => complete(one, told));
      if (failure === CANCELLED) return;
      if (failure) return say(`${one.told.name}: ${failure}`, true);
    }
    say(`Removed from ${painted.length} photographs in ${secondsSince(begin)} s, everything else untouched.`);
  }

  /** Paints on all photographs what is painted on this one, stretched where they have other sizes. */
  async function sameForAll() {
    const { paint, now } = photo;
    if (!now.marks.length) return say("Paint over what should go first.");
    for (const one of photos.filter((other) => other !== photo)) {
      const layer = makeLayer(one.width, one.height);
      layer.getContext("2d", { willReadFrequently: true }).drawImage(paint, 0, 0, one.width, one.height);
      layer.packed = await packMask(layer);
      one.commit({ marks: [{ layer }] });
      remember(one);
    }
    showState();
    say(`All ${photos.length} photographs have these strokes.`);
  }

  async function selectObject() {
    if (!photo || job) return;
    if (!photo.now.marks.length) return say("Paint roughly over an object first; its outline is found.");
    const failure = await work("Looking for the object", async (told) => {
      const answer = await server.call("select_object", await photo.asked(margin()), told);
      commit({ marks: [{ layer: await paintOf(answer.strokes) }] });
    });
    if (failure) sayFailure(failure);
  }

  async function readMask([file]) {
    const failure = await work("Opening the mask", async (told) => {
      const mask = await server.upload(file, told);
      const answer = await server.call("read_mask", { photo: photo.told.photo, mask }, told);
      mark({ layer: await paintOf(answer.strokes) });
    });
    if (failure) sayFailure(failure);
  }

  async function download(kind) {
    togglePanel(null);
    const failure = await work("Making the file", async (told) => {
      const steps = ({ now, told }) => ({ photo: told.photo, steps: now.steps.map(({ name }) => name) });
      const asked = kind === "all" ? { photos: photos.map(steps) } : { ...(await photo.asked(margin())), kind };
      const { path } = await server.call(kind === "all" ? "save_all" : "save", asked, told);
      const stem = photo.told.name.replace(/\.[^.]*$/, "").replace(/_completed$/, "");
      const suffix = path.slice(path.lastIndexOf("."));
      const link = document.createElement("a");
      link.href = server.addressOf(path);
      link.download = kind === "all" ? "completed.zip" : `${stem}_${kind === "mask" ? "mask" : "completed"}${suffix}`;
      link.click();
    });
    if (failure) sayFailure(failure);
  }

  // Painting

  const onPhoto = ({ x, y }) => [(x - place.x) / place.scale, (y - place.y) / place.scale];

  function beginStroke(point) {
    stroke = { erases: tool === "eraser", size: sizeSlider.valueAsNumber / place.scale, points: [onPhoto(point)] };
    sayNothing();
    continueStroke([]);
  }

  function continueStroke(points) {
    const begin = Math.max(stroke.points.length - 1, 0);
    stroke.points.push(...points.map(onPhoto));
    const context = photo.paint.getContext("2d", { willReadFrequently: true });
    context.save();
    drawStroke(context, stroke, begin);
    context.restore();
    draw();
  }

  function endStroke() {
    const done = stroke;
    stroke = null;
    keyboardDown = false;
    if (done.erases && !photo.now.marks.length) return render();
    mark(done);
    if (option("at-once").checked && !done.erases) remove();
  }

  function dropStroke() {
    stroke = null;
    keyboardDown = false;
    if (photo) render();
  }

  function pointOf(event) {
    const box = view.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  view.addEventListener("pointerdown", (event) => {
    if (!photo) return;
    event.preventDefault();
    view.focus({ preventScroll: true, focusVisible: false });
    togglePanel(null);
    view.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, pointOf(event));
    if (pointers.size > 1) {
      if (stroke) dropStroke(); // two fingers never paint
      gesture = "pinch";
    } else if (event.button === 1 || spaceHeld) {
      gesture = "pan";
    } else if (event.button === 0 && !job && !comparing) {
      brush = pointOf(event);
      beginStroke(brush);
    }
  });

  view.addEventListener("pointermove", (event) => {
    const point = pointOf(event);
    if (event.pointerType !== "touch" || stroke) brush = point;
    const before = pointers.get(event.pointerId);
    if (before) pointers.set(event.pointerId, point);
    if (before && gesture === "pinch" && pointers.size === 2) {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, where]) => where);
      const distance = (one) => Math.hypot(one.x - other.x, one.y - other.y) || 1;
      place = {
        ...place,
        x: place.x + (point.x - before.x) / 2,
        y: place.y + (point.y - before.y) / 2,
        fitted: false,
      };
      zoom(distance(point) / distance(before), (point.x + other.x) / 2, (point.y + other.y) / 2);
    } else if (before && gesture === "pan") {
      place = { ...place, x: place.x + point.x - before.x, y: place.y + point.y - before.y, fitted: false };
    } else if (before && stroke && !keyboardDown) {
      const moves = event.getCoalescedEvents?.() ?? [];
      continueStroke((moves.length ? moves : [event]).map(pointOf));
    }
    draw();
  });

  function pointerUp(event) {
    if (!pointers.delete(event.pointerId)) return;
    if (stroke && !keyboardDown && !pointers.size) event.type === "pointerup" ? endStroke() : dropStroke();
    if (!pointers.size) gesture = null;
    if (event.pointerType === "touch") brush = null;
    draw();
  }
  view.addEventListener("pointerup", pointerUp);
  view.addEventListener("pointercancel", pointerUp);
  view.addEventListener("pointerleave", () => {
    if (!keyboardDown) brush = null;
    draw();
  });
  view.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const { x, y } = pointOf(event);
      const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
      zoom(Math.exp(-pixels * (event.ctrlKey ? 0.01 : 0.0015)), x, y);
    },
    { passive: false },
  );
  view.addEventListener("contextmenu", (event) => event.preventDefault());

  /** The keyboard's brush: arrows move it, Enter puts it down and lifts it. */
  function moveBrush(key, far) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    brush ??= { x: view.clientWidth / 2, y: view.clientHeight / 2 };
    const step = KEYBOARD_STEP * (far ? 5 : 1);
    brush = { x: brush.x + step * moves[key][0], y: brush.y + step * moves[key][1], byKey: true };
    if (keyboardDown) continueStroke([brush]);
    draw();
  }

  function pressBrush() {
    if (keyboardDown) return endStroke();
    beginStroke(brush);
    keyboardDown = true;
  }

  // Buttons and keys

  function chooseTool(name) {
    tool = name;
    for (const one of root.querySelectorAll("[data-tool]"))
      one.setAttribute("aria-pressed", one.dataset.tool === name);
  }

  function setSize(size) {
    sizeSlider.value = size;
    sizeSlider.nextElementSibling.textContent = sizeSlider.value;
    draw();
  }

  function compare(on) {
    comparing = on && !button("compare").disabled;
    button("compare").setAttribute("aria-pressed", comparing);
    draw();
  }

  function togglePanel(name) {
    for (const panel of root.querySelectorAll(".panel")) {
      panel.hidden = panel.dataset.panel !== name || !panel.hidden;
      button(panel.dataset.panel).setAttribute("aria-expanded", !panel.hidden);
    }
  }

  const actions = {
    open: () => find("#photograph").click(),
    undo: () => go(-1),
    redo: () => go(1),
    download: () => photo && togglePanel("download"),
    help: () => find("dialog").showModal(),
    api: () => {
      find("dialog").close();
      document.querySelector("footer .show-api").click(); // Gradio's button, which the page does not show
    },
    "close-help": () => find("dialog").close(),
    cancel,
    select: selectObject,
    "zoom-in": () => zoom(1.25),
    "zoom-out": () => zoom(0.8),
    fit,
    options: () => togglePanel("options"),
    mask: () => find("#mask").click(),
    invert: () => mark({ inverts: true }),
    "same-for-all": sameForAll,
    "remove-all": removeAll,
    remove,
  };

  root.addEventListener("click", ({ target }) => {
    const pressed = target.closest("button");
    if (!target.closest(".popup")) togglePanel(null);
    if (pressed?.dataset.tool) chooseTool(pressed.dataset.tool);
    else if (pressed?.dataset.sample) openSample(pressed.dataset.sample);
    else if (pressed?.dataset.save) download(pressed.dataset.save);
    else actions[pressed?.dataset.do]?.();
  });

  for (const slider of root.querySelectorAll(".size input")) {
    slider.addEventListener("input", () => (slider.nextElementSibling.textContent = slider.value));
  }

  button("compare").addEventListener("pointerdown", () => compare(true));
  for (const name of ["pointerup", "pointerleave", "pointercancel", "blur"])
    button("compare").addEventListener(name, () => compare(false));
  button("compare").addEventListener("contextmenu", (event) => event.preventDefault()); // of a finger that is held
  button("compare").addEventListener("keydown", ({ key }) => (key === " " || key === "Enter") && compare(true));

  for (const [id, what] of [
    ["#photograph", open],
    ["#mask", readMask],
  ]) {
    find(id).addEventListener("change", ({ target }) => {
      const files = [...target.files];
      target.value = ""; // so that the same file can be chosen again
      if (files.length) what(files);
    });
  }

  const keys = {
    b: () => chooseTool("brush"),
    e: () => chooseTool("eraser"),
    "[": () => setSize(Math.round(sizeSlider.valueAsNumber / 1.2)),
    "]": () => setSize(Math.ceil(sizeSlider.valueAsNumber * 1.2)),
    s: selectObject,
    o: actions.open,
    c: () => compare(true),
    "+": actions["zoom-in"],
    "=": actions["zoom-in"],
    "-": actions["zoom-out"],
    0: fit,
    "?": actions.help,
    Enter: remove,
  };
  const keysWithControl = { z: () => go(-1), y: () => go(1), s: actions.download, enter: remove };

  document.addEventListener("keydown", (event) => {
    const { key, target } = event;
    if (!root.isConnected || find("dialog").open || target.matches?.("input[type=text], textarea")) return;
    const control = event.ctrlKey || event.metaKey;
    const does = control
      ? event.shiftKey && key.toLowerCase() === "z"
        ? () => go(1)
        : keysWithControl[key.toLowerCase()]
      : keys[key.length === 1 ? key.toLowerCase() : key];
    if (key === "Escape") {
      if (stroke) dropStroke();
      else if (job) cancel();
      else if (find(".panel:not([hidden])")) togglePanel(null);
      else sayNothing();
    } else if (target === view && key.startsWith("Arrow") && photo) {
      event.preventDefault();
      moveBrush(key, event.shiftKey);
    } else if (target === view && key === "Enter" && !control && brush?.byKey && photo && !job) {
      pressBrush();
    } else if (key === " " && !target.matches?.("button, input, summary, a")) {
      event.preventDefault();
      spaceHeld = true;
      view.classList.add("panning");
    } else if (does && !event.altKey && !(key === "Enter" && target.matches?.("button, input, summary, a"))) {
      event.preventDefault();
      does();
    }
  });

  function release() {
    spaceHeld = false;
    view.classList.remove("panning");
    compare(false);
  }
  document.addEventListener("keyup", ({ key }) => [" ", "c", "enter"].includes(key.toLowerCase()) && release());
  window.addEventListener("blur", release);

  // Files that are dropped or pasted

  for (const name of ["dragenter", "dragover"]) {
    root.addEventListener(name, (event) => {
      event.preventDefault();
      root.classList.add("over");
    });
  }
  root.addEventListener(
    "dragleave",
    ({ relatedTarget }) => root.contains(relatedTarget) || root.classList.remove("over"),
  );
  root.addEventListener("drop", async (event) => {
    event.preventDefault();
    root.classList.remove("over");
    const files = await filesOf(event.dataTransfer);
    if (files.length) open(files);
    else say("There is no photograph in this. Save it first, and drop its file; addresses are not fetched.", true);
  });
  document.addEventListener(
    "paste",
    ({ clipboardData }) => clipboardData.files.length && open([...clipboardData.files]),
  );

  root.classList.toggle("embedded", window.parent !== window);
  new ResizeObserver(resize).observe(find(".stage"));
  showState();
  restore().catch(() => {
    memory = null; // the browser keeps nothing here
  });
}
