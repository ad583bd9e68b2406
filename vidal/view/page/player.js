import { drawing, element } from "./dom.js";

const MOST_DRIFT_S = 0.15;

/**
 * Plays one clip: video, audio, frames of every layer and the waveform on one time axis.
 *
 * The audio is the clock, else the video, else a timer; what else plays is set to the clock's time when it drifts. A
 * frame is shown from its own time until that of the next one.
 */
export class Player {
  #clockTime = 0;
  #isPlaying = false;
  #lastTick = 0;
  #failed = new Set();

  /** `video` and `audio` are addresses or undefined, `layers` answers of `preview`, `peaks` pairs or undefined. */
  constructor({ duration, video, audio, layers, peaks }) {
    this.duration = duration;
    this.screens = element("div", { className: "screens" });
    this.axis = element("div", { className: "axis" });
    this.media = [audio && this.#audio(audio), video && this.#video(video, Boolean(audio))].filter(Boolean);
    this.layers = layers.filter((layer) => layer.frames.length).map((layer) => this.#layer(layer));
    if (peaks) this.axis.append(...waveform(peaks));
    this.head = element("div", { className: "playhead" });
    this.axis.append(this.head);
    this.element = element("section", { className: "player", "aria-label": "Player" });
    this.element.append(this.screens, this.#controls(Boolean(audio || video)), this.axis);
    if (audio) this.element.append(this.media[0]);
    this.#listen();
    this.#show();
  }

  get time() {
    return this.#clockTime;
  }

  get isPlaying() {
    return this.#isPlaying;
  }

  toggle() {
    if (this.#isPlaying) this.pause();
    else this.play();
  }

  play() {
    if (this.#clockTime >= this.duration - 0.01) this.seek(0);
    this.#isPlaying = true;
    this.#lastTick = performance.now();
    this.#follow();
    this.#show();
    requestAnimationFrame((now) => this.#tick(now));
  }

  pause() {
    this.#isPlaying = false;
    for (const medium of this.media) medium.pause();
    this.#show();
  }

  seek(time) {
    this.#clockTime = Math.min(Math.max(time, 0), this.duration);
    for (const medium of this.media) medium.currentTime = this.#clockTime;
    this.#show();
  }

  #tick(now) {
    if (!this.#isPlaying) return;
    if (!this.element.isConnected) return this.pause();
    const clock = this.media.find((medium) => this.#canLead(medium));
    if (!clock) this.#clockTime += (now - this.#lastTick) / 1000;
    else if (!clock.seeking) this.#clockTime = clock.currentTime;
    this.#lastTick = now;
    if (this.#clockTime >= this.duration) {
      this.#clockTime = this.duration;
      return this.pause();
    }
    this.#follow();
    this.#show();
    requestAnimationFrame((later) => this.#tick(later));
  }

  #canLead(medium) {
    return !this.#failed.has(medium) && !medium.ended && !(medium.duration <= this.#clockTime);
  }

  #follow() {
    for (const medium of this.media.filter((one) => this.#canLead(one))) {
      if (!medium.seeking && Math.abs(medium.currentTime - this.#clockTime) > MOST_DRIFT_S) {
        medium.currentTime = this.#clockTime;
      }
      // A pause that comes before it has begun is no failure.
      if (medium.paused) medium.play().catch((error) => error.name === "AbortError" || this.#failed.add(medium));
    }
  }

  #show() {
    const time = this.#clockTime;
    for (const layer of this.layers) layer.show(time);
    this.head.style.left = `${(100 * time) / this.duration}%`;
    const text = `${time.toFixed(2)} of ${this.duration.toFixed(2)} s`;
    this.slider.value = time;
    this.slider.setAttribute("aria-valuetext", text);
    this.clockText.textContent = text;
    this.button.textContent = this.#isPlaying ? "❚❚ Pause" : "▶ Play";
  }

  #controls(hasSound) {
    this.button = element("button", { type: "button", className: "play", onclick: () => this.toggle() });
    this.slider = element("input", {
      type: "range", min: 0, max: this.duration, step: 0.01, "aria-label": "Time in seconds",
      oninput: () => this.seek(Number(this.slider.value)),
    });
    this.clockText = element("span", { className: "clock" });
    const mute = element("button", { type: "button", "aria-pressed": "false" }, "Mute");
    mute.onclick = () => {
      const isMuted = mute.getAttribute("aria-pressed") === "false";
      mute.setAttribute("aria-pressed", isMuted);
      this.media[0].muted = isMuted;
    };
    return element("div", { className: "controls" }, this.button, this.slider, this.clockText, hasSound ? mute : null);
  }

  #audio(address) {
    return this.#watched(element("audio", { src: address, preload: "auto" }));
  }

  #video(address, isMuted) {
    const video = this.#watched(element("video", { src: address, preload: "auto", muted: isMuted, playsInline: true }));
    video.onclick = () => this.toggle();
    this.screens.append(screen("video", "", video));
    return video;
  }

  #watched(medium) {
    medium.onerror = () => {
      this.#failed.add(medium);
      this.element.append(element("p", { className: "soft" }, `this browser cannot play the ${medium.localName}`));
    };
    return medium;
  }

  /** Show a layer's frames in a strip on the axis, and the one of the moment on a screen. */
  #layer({ layer, note, is_synthetic: isSynthetic, frames }) {
    const hasTimes = frames.every((frame) => frame.time_s !== null);
    const times = frames.map((frame, k) => (hasTimes ? frame.time_s : (k * this.duration) / frames.length));
    const title = layer === "video" ? "frames" : layer;
    const strip = element("div", { className: "strip" });
    const canvas = element("canvas", { role: "img", width: 16, height: 9 });
    const images = frames.map((frame, k) => {
      const image = element("img", { src: frame.url, alt: `${title} at ${times[k].toFixed(2)} s`, draggable: false });
      const start = k ? times[k] : 0;
      image.style.left = `${(100 * start) / this.duration}%`;
      image.style.width = `${(100 * ((times[k + 1] ?? this.duration) - start)) / this.duration}%`;
      return image;
    });
    strip.append(...images);
    const about = [isSynthetic && "synthetic: generated by a model", note, !hasTimes && "times are not stored"];
    const details = about.filter(Boolean).join(" · ");
    this.axis.append(element("h4", {}, title, element("span", { className: "soft" }, details && ` ${details}`)), strip);
    const caption = element("span");
    this.screens.append(screen(title, caption, canvas));
    let shown = -1;
    const show = (time) => {
      const k = Math.max(0, times.findLastIndex((start) => start <= time));
      if (k === shown) return;
      shown = k;
      caption.textContent = `${times[k].toFixed(2)} s`;
      canvas.dataset.frame = k;
      canvas.setAttribute("aria-label", images[k].alt);
      images.forEach((image, other) => image.classList.toggle("shown", other === k));
      draw(canvas, images[k], () => shown === k);
    };
    return { show };
  }

  #listen() {
    const seekTo = (event) => {
      const box = this.axis.getBoundingClientRect();
      this.seek(((event.clientX - box.left) / box.width) * this.duration);
    };
    this.axis.onpointerdown = (event) => {
      this.axis.setPointerCapture(event.pointerId);
      seekTo(event);
    };
    this.axis.onpointermove = (event) => event.buttons && seekTo(event);
  }
}

function screen(title, caption, shown) {
  return element("figure", {}, shown, element("figcaption", {}, `${title} `, caption));
}

async function draw(canvas, image, isWanted) {
  await image.decode().catch(() => null);
  if (!isWanted() || !image.naturalWidth) return;
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  canvas.getContext("2d").drawImage(image, 0, 0);
}

/** Return a heading and the waveform, as high as its loudest sample. */
function waveform(peaks) {
  const plot = drawing("wave", "waveform");
  const loudest = Math.max(...peaks.flat().map(Math.abs));
  const scale = 100 / (loudest || 1);
  const level = loudest ? ` scaled to its peak of ${(20 * Math.log10(loudest)).toFixed(0)} dBFS` : " silent";
  const points = peaks.map(([low, high], k) => [(1000 * (k + 0.5)) / peaks.length, -scale * low, -scale * high]);
  const over = points.map(([x, , y]) => `${x} ${y}`);
  const under = points.map(([x, y]) => `${x} ${y}`).reverse();
  plot.querySelector("path").setAttribute("d", `M${[...over, ...under].join("L")}Z`);
  return [element("h4", {}, "audio", element("span", { className: "soft" }, level)), plot];
}
