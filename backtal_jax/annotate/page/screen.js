// What is on screen, on our clock: seconds from the first picture of the video.
// The browser's clock begins elsewhere where the sound does, or the file was
// cut; `first` is when the first picture stands there.

// Seconds from which on a picture is a still, or late.
const HELD = 0.1;

export class Screen {
  constructor(video) {
    this.video = video;
    this.clear();
  }

  // picture: when the picture on screen begins; since: when it came; frame:
  // the shortest time of one; furthest: the last picture ever shown; pictures:
  // how long they are together, as the server knows, or null; told: when the
  // last picture begins on the browser's clock that the callback told of;
  // counted: whether the browser's pictures are known to count as it does.
  clear() {
    Object.assign(this, {
      first: 0, picture: 0, since: 0, frame: Infinity, furthest: 0,
      pictures: undefined, time: 0, ready: false, presented: 0,
      counted: false});
    this.leave();
  }

  // A seek begins: what is on screen is the old picture, until one more has
  // been painted.
  leave() {
    Object.assign(this, {arrived: false, told: undefined});
    this.awaited = this.presented + ('requestVideoFrameCallback' in this.video);
  }

  get landed() {
    return !this.video.seeking && this.presented >= this.awaited;
  }

  get clock() {
    return this.video.currentTime - this.first;
  }

  // Of the pictures; else the file's, which the sound may make longer. Both
  // may turn out to be too short.
  get length() {
    const {duration} = this.video;
    const told = Number.isFinite(duration) ? duration - this.first : 0;
    return Math.max(this.pictures ?? told, this.furthest);
  }

  // Where the picture on screen begins on the browser's clock. The callback,
  // which tells it, may come late, or never.
  start() {
    const {told} = this;
    try {
      const frame = new VideoFrame(this.video);
      const [time, lasts] = [frame.timestamp, frame.duration].map(x => x / 1e6);
      frame.close();
      if (lasts > 0) this.frame = Math.min(this.frame, lasts);
      // Another browser may count from elsewhere. Where it was near to what the
      // callback told once, it does not, though a still began long ago.
      const near = x => Math.abs(time - x) < 1;
      this.counted ||= told !== undefined && near(told);
      if (this.counted || near(this.video.currentTime)) return time;
    } catch {}  // not known in this browser, or no frame yet
    return told ?? (this.video.requestVideoFrameCallback
      ? this.ready ? this.picture + this.first : undefined
      : this.video.currentTime);
  }

  // Take note of the picture on screen, which came so many seconds ago.
  look(ago = 0) {
    const start = this.start();
    if (start === undefined) return;
    if (!this.ready) this.first = start;
    const picture = start - this.first;
    if (picture !== this.picture || !this.arrived) {
      // In playing, a picture may come after its time.
      const came = this.clock - ago;
      const late = this.arrived && came - picture > HELD;
      Object.assign(this, {picture, since: late ? came : picture});
    }
    this.furthest = Math.max(this.furthest, picture);
    this.arrived = this.landed;
  }

  // The moment that a click means: that of the picture on screen or, where it
  // stands still, of the clock.
  get now() {
    if (!this.landed) return this.time;
    this.look();
    const held = this.clock - this.since;
    const still = held > HELD && this.clock < this.length;
    return Math.max(0, this.picture + (still ? held : 0));
  }
}
