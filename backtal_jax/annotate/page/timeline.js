// The line below the video: curves, segments, clicks, proposals and the
// playhead.

// Seconds that are seen when the line is enlarged.
const CLOSE = 60;

export const clock = seconds => {
  const whole = Math.round(seconds * 100);
  const two = number => String(number).padStart(2, '0');
  const rest = Math.floor(whole / 100);
  return `${Math.floor(rest / 60)}:${two(rest % 60)}.${two(whole % 100)}`;
};

export class Timeline {
  constructor(element, player) {
    Object.assign(this, {element, player, close: false, from: 0});
    this.svg = element.querySelector('svg');
    this.strip = element.querySelector('#strip');
    this.lanes = element.querySelector('#lanes');
    this.marks = element.querySelector('#marks');
    this.head = element.querySelector('#head');
    const seek = event => {
      const box = this.strip.getBoundingClientRect();
      player.seek((event.clientX - box.left) / box.width * player.length);
    };
    element.addEventListener('pointerdown', event => {
      element.setPointerCapture(event.pointerId);
      seek(event);
    });
    element.addEventListener('pointermove', event => {
      if (element.hasPointerCapture(event.pointerId)) seek(event);
    });
  }

  move() {
    const {time, length} = this.player;
    this.head.style.left = `${100 * time / (length || 1)}%`;
    this.scroll(time, length);
    this.element.setAttribute('aria-valuemax', length.toFixed(2));
    this.element.setAttribute('aria-valuenow', time.toFixed(2));
    this.element.setAttribute(
      'aria-valuetext', `${clock(time)} of ${clock(length)}`);
  }

  // See the whole, or a minute of it; returns whether it is a minute.
  zoom() {
    this.close = !this.close;
    this.from = -Infinity;
    this.move();
    return this.close;
  }

  // The strip is as long as the video; of it the part is seen where we are.
  scroll(time, length) {
    const seen = this.close ? Math.min(CLOSE, length || CLOSE) : length || 1;
    if (time < this.from || time > this.from + seen || seen >= length) {
      this.from = Math.max(0, Math.min(time - seen / 2, length - seen));
    }
    const {style} = this.strip;
    const width = `${100 * (length || 1) / seen}%`;
    const left = `${-100 * this.from / seen}%`;
    if (style.width !== width) style.width = width;
    if (style.left !== left) style.left = left;
  }

  draw(clicks, proposals, curves, segments, selected, mark) {
    const part = time => `${100 * time / (this.player.length || 1)}%`;
    const place = (kind, time) => {
      const element = document.createElement('i');
      element.className = kind;
      element.style.left = part(time);
      return element;
    };
    const labels = [...new Set(segments.map(s => s.label))].sort();
    this.lanes.replaceChildren(...segments.map(s => {
      const kind = `${s.verdict} ${s.pending ? 'pending' : ''}`;
      const lane = place(
        s.name === selected ? `${kind} selected` : kind, s.start);
      lane.style.width = part(s.end - s.start);
      // What is accepted lies above what is not: they overlap in time.
      const height = Math.min(40, 100 / labels.length);
      const below = s.verdict === 'accepted' ? 0 : 0.5;
      lane.style.top = `${height * (labels.indexOf(s.label) + below)}%`;
      lane.style.height = `${0.42 * height}%`;
      return lane;
    }));
    this.marks.replaceChildren(
      ...proposals.map(([time]) => place('proposal', time)),
      ...clicks.map(c => place(`${c.kind} ${c.pending ? 'pending' : ''}`, c.time)),
      ...(mark === null ? [] : [place('edge', mark)]),
    );
    this.svg.replaceChildren(...Object.values(curves).map(values => {
      const path = document.createElementNS(this.svg.namespaceURI, 'path');
      const points = values.map(
        (v, i) => `${(i + 0.5) / values.length},${0.97 - 0.94 * v}`);
      path.setAttribute('d', `M${points.join('L')}`);
      return path;
    }));
  }
}
