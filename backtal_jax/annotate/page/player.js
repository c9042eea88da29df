// The video: playing, seeks, steps, speeds, loops.

import {Screen} from '/page/screen.js';
import {stepOnce} from '/page/steps.js';

const SPEEDS = [0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4];
// Milliseconds for which a seek's picture is waited for, which a busy machine
// paints late, and for the rest of its paint.
const LONGEST_PAINT = 1000;
const PAINTED = 20;

export class Player extends Screen {
  // onFrame is called with every picture, onReady with the first of a video.
  constructor(video, onFrame, onReady) {
    super(video);
    Object.assign(this, {onFrame, onReady, waiters: [], sought: 0});
    this.stepping = Promise.resolve();  // one step after the other
    // currentTime may be a frame off; this is the frame that is shown.
    const shown = (now, {mediaTime, presentedFrames, presentationTime}) => {
      const ago = (performance.now() - presentationTime) / 1000;
      Object.assign(this, {presented: presentedFrames, told: mediaTime});
      this.show(video.paused ? 0 : ago * video.playbackRate);
      this.waiters.splice(0).forEach(resolve => resolve());
      video.requestVideoFrameCallback(shown);
    };
    video.requestVideoFrameCallback?.(shown);
    video.addEventListener('loadeddata', () => this.show());
    video.addEventListener('timeupdate', () => this.show());
    video.addEventListener('seeking', () => { if (!this.going) this.leave(); });
    for (const end of ['seeked', 'emptied', 'error']) {
      video.addEventListener(
        end, () => this.waiters.splice(0).forEach(resolve => resolve()));
    }
  }

  open(url) {
    this.clear();
    this.video.src = url;
  }

  // pending: where to go, and eager: whether to play, once it is ready.
  clear() {
    super.clear();
    Object.assign(this, {
      range: null, back: null, pending: null, eager: false, slow: false,
      finding: false});
  }

  show(ago) {
    // The first picture may be told of before the browser says that it is there.
    if (this.video.readyState < 2 || !this.landed) return;
    this.look(ago);
    if (!this.ready) {
      performance.mark('first frame');
      this.ready = true;
      if (this.pending !== null) this.go(this.pending);
      if (this.eager) this.play();
      this.onReady();
    }
    this.time = this.now;
    const [begin, end] = this.range ?? [];
    if (this.time >= end || this.time < begin - 1) this.go(begin);
    this.onFrame();
  }

  // The file does not tell its length: look at its end.
  async findEnd() {
    if (this.finding) return;
    this.finding = true;
    this.video.currentTime = 1e9;
    while (this.video.seeking) await this.wait();
    this.video.currentTime = this.first;
  }

  seek(time) {
    this.back = null;
    this.sought += 1;
    return this.go(time);
  }

  // So many seconds on, or back; several at once add up.
  jump(seconds) {
    const from = this.going ? this.target
      : this.ready ? Math.max(0, this.clock) : this.pending;
    return this.seek(seconds + from);
  }

  // Browsers lose seeks that overlap: one at a time, and the last one wins.
  go(time) {
    if (!this.ready) {
      this.pending = time;
      return Promise.resolve();
    }
    this.target = Math.max(0, Math.min(time, this.end));
    this.going ??= this.drive().finally(() => { this.going = null; });
    return this.going;
  }

  get end() {
    return this.length - 0.001;
  }

  // Until there is a new picture or the video did something else.
  wait(most) {
    return new Promise(resolve => {
      this.waiters.push(resolve);
      if (most) setTimeout(resolve, most);
    });
  }

  async drive() {
    const {video} = this;
    for (let reached; reached !== this.target && video.readyState;) {
      reached = this.target;
      this.leave();
      video.currentTime = reached + this.first;
      while (video.seeking && video.readyState) await this.wait();
      // Every seek paints, but not in a hidden tab.
      const late = performance.now() + LONGEST_PAINT;
      while (!this.landed && !document.hidden && performance.now() < late) {
        await this.wait(LONGEST_PAINT);
      }
      if (!this.landed) this.awaited = this.presented;
      // Some paint twice, which is not the next seek's picture.
      await new Promise(resolve => setTimeout(resolve, PAINTED));
    }
    this.show();
  }

  // One frame on (1) or back (-1).
  step(direction) {
    this.pause();
    this.stepping = this.stepping.then(() => stepOnce(this, direction));
  }

  // Nothing moves before the first picture is on screen, from which on seconds
  // are counted.
  play() {
    this.back = null;
    this.eager = !this.ready;
    if (this.ready) this.video.play().catch(() => {});
  }

  pause() {
    this.back = null;
    this.eager = false;
    this.video.pause();
  }

  toggle() {
    this.video.paused && !this.back && !this.eager ? this.play() : this.pause();
  }

  forward() {
    if (this.video.paused) return this.play();
    this.speed(1);
  }

  // No browser plays backwards: seek, as fast as it shows frames.
  async backward() {
    this.pause();
    const mine = this.back = {};
    let last = performance.now();
    while (this.back === mine && this.picture > 0.01) {
      const now = performance.now();
      await this.go(
        this.clock - this.video.playbackRate * (now - last) / 1000);
      last = now;
      await new Promise(resolve => setTimeout(resolve, 40));
    }
    if (this.back === mine) this.back = null;
  }

  speed(direction) {
    const at = SPEEDS.indexOf(this.video.playbackRate);
    const to = SPEEDS[Math.max(0, Math.min(at + direction, SPEEDS.length - 1))];
    this.video.defaultPlaybackRate = this.video.playbackRate = to;
  }

  loop(range) {
    this.range = range;
    if (range) this.seek(range[0]).then(() => this.play());
  }

  // Play until a picture comes that is wanted, or so many milliseconds are over;
  // return when the pictures begin that were shown.
  playUntil(wanted, rate, most = 3000) {
    const {video, first} = this;
    const {muted, playbackRate} = video;
    this.slow = true;
    return new Promise(resolve => {
      const seen = [];
      const stop = () => {
        clearTimeout(timer);
        video.pause();
        Object.assign(video, {muted, playbackRate});
        this.slow = false;
        resolve(seen);
      };
      const timer = setTimeout(stop, most);
      const shown = (now, {mediaTime}) => {
        seen.push(mediaTime - first);
        if (wanted(mediaTime - first)) stop();
        else video.requestVideoFrameCallback(shown);
      };
      video.requestVideoFrameCallback(shown);
      Object.assign(video, {muted: true, playbackRate: rate});
      video.play().catch(stop);
    });
  }
}
