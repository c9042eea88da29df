// The video: the time of the frame on screen, steps, speeds, loops.

const SPEEDS = [0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4];

export class Player {
  constructor(video, onFrame) {
    Object.assign(this, {video, onFrame, waiters: [], sought: 0});
    this.stepping = Promise.resolve();  // one step after the other
    this.clear();
    // currentTime may be a frame off; this is the frame that is shown.
    const shown = (now, {mediaTime}) => {
      this.show(mediaTime);
      video.requestVideoFrameCallback(shown);
    };
    if (video.requestVideoFrameCallback) {
      video.requestVideoFrameCallback(shown);
    } else {
      video.addEventListener('timeupdate', () => this.show(video.currentTime));
    }
    for (const end of ['seeked', 'emptied', 'error']) {
      video.addEventListener(
        end, () => this.waiters.splice(0).forEach(resolve => resolve()));
    }
  }

  // The time of the frame on screen: the callback may come late, or never.
  get now() {
    try {
      const frame = new VideoFrame(this.video);
      const time = frame.timestamp / 1e6;
      frame.close();
      return Math.abs(time - this.video.currentTime) < 1 ? time : this.time;
    } catch {  // not known in this browser, or no frame yet
      return this.time;
    }
  }

  open(url) {
    this.clear();
    this.video.src = url;
  }

  clear() {
    Object.assign(this, {
      time: 0, frame: Infinity, range: null, back: null, ready: false});
  }

  show(time) {
    const step = Math.abs(time - this.time);
    // The shortest step between frames ever seen is a frame.
    if (this.ready && step > 0.001) this.frame = Math.min(this.frame, step);
    if (!this.ready) performance.mark('first frame');
    Object.assign(this, {time, ready: true});
    if (this.range && (time >= this.range[1] || time < this.range[0] - 1)) {
      this.go(this.range[0]);
    }
    this.onFrame();
  }

  get duration() {
    return Number.isFinite(this.video.duration) ? this.video.duration : 0;
  }

  seek(time) {
    this.back = null;
    this.sought += 1;
    return this.go(time);
  }

  // So many seconds on, or back; several at once add up.
  jump(seconds) {
    return this.seek(seconds + (this.going ? this.target : this.now));
  }

  // Browsers lose seeks that overlap: one at a time, and the last one wins.
  go(time) {
    if (!this.video.readyState) return Promise.resolve();
    this.target = Math.max(0, Math.min(time, this.duration - 0.001));
    this.going ??= this.drive().finally(() => { this.going = null; });
    return this.going;
  }

  async drive() {
    for (let reached; reached !== this.target && this.video.readyState;) {
      reached = this.target;
      this.video.currentTime = reached;
      await new Promise(resolve => this.waiters.push(resolve));
    }
    if (!window.VideoFrame) await new Promise(resolve => setTimeout(resolve, 100));
    if (this.ready) this.show(this.now);
  }

  // One frame on (1) or back (-1): into the middle of the neighbour, or, where
  // the frame's length is not known yet, on and on until another is shown.
  step(direction) {
    this.pause();
    this.stepping = this.stepping.then(() => this.stepOnce(direction));
  }

  async stepOnce(direction) {
    const [from, {sought}] = [this.now, this];
    const known = Number.isFinite(this.frame);
    let offset = known ? (direction > 0 ? 1.5 : 0.5) * this.frame : 1 / 120;
    for (; this.now === from && offset < 1; offset += 1 / 120) {
      if (sought !== this.sought) break;
      const to = from + direction * offset;
      await this.go(to);
      if (to <= 0 || to >= this.duration) break;
    }
  }

  play() {
    this.back = null;
    this.video.play().catch(() => {});
  }

  pause() {
    this.back = null;
    this.video.pause();
  }

  toggle() {
    this.video.paused && !this.back ? this.play() : this.pause();
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
    while (this.back === mine && this.time > 0.01) {
      const now = performance.now();
      await this.go(this.time - this.video.playbackRate * (now - last) / 1000);
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
}
