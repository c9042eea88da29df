// The line below the video: curves, clicks, proposals and the playhead.

export const clock = seconds => {
  const whole = Math.round(seconds * 100);
  const two = number => String(number).padStart(2, '0');
  const rest = Math.floor(whole / 100);
  return `${Math.floor(rest / 60)}:${two(rest % 60)}.${two(whole % 100)}`;
};

export class Timeline {
  constructor(element, player) {
    Object.assign(this, {element, player});
    this.svg = element.querySelector('svg');
    this.marks = element.querySelector('#marks');
    this.head = element.querySelector('#head');
    const seek = event => {
      const box = element.getBoundingClientRect();
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
    this.element.setAttribute('aria-valuemax', length.toFixed(2));
    this.element.setAttribute('aria-valuenow', time.toFixed(2));
    this.element.setAttribute(
      'aria-valuetext', `${clock(time)} of ${clock(length)}`);
  }

  draw(clicks, proposals, curves) {
    const place = (kind, time) => {
      const mark = document.createElement('i');
      mark.className = kind;
      mark.style.left = `${100 * time / (this.player.length || 1)}%`;
      return mark;
    };
    this.marks.replaceChildren(
      ...proposals.map(([time]) => place('proposal', time)),
      ...clicks.map(c => place(`${c.kind} ${c.pending ? 'pending' : ''}`, c.time)),
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
