// Segments that a model found: judged, corrected, added by hand.

import {$, get, say} from '/page/dom.js';
import {list, span} from '/page/segments.js';
import {clock} from '/page/timeline.js';

const STEP = 0.05;  // of the threshold
const MANY = 200;  // segments that one act judges
const FRAME = 0.04;  // seconds, where the browser does not tell
const KEPT = 'review:threshold';

export class Review {
  // send(action) saves; onChange draws.
  constructor(player, {classes}, saver, send, onChange) {
    Object.assign(this, {player, classes, saver, send, onChange});
    this.threshold = Number(localStorage.getItem(KEPT) ?? 0.3);
    this.on = sessionStorage.getItem('review') === 'on';
    this.clear();
  }

  clear() {
    Object.assign(this, {
      proposed: [], loaded: false, name: null, mark: null, warned: false,
      current: {name: '', segments: {}, labels: []}});
  }

  // In the mode, the keys are those of the review.
  switch() {
    this.on = !this.on;
    sessionStorage.setItem('review', this.on ? 'on' : 'off');
    Object.assign(this, {mark: null, warned: false});
  }

  async load(name, isCurrent) {
    if (!this.on || this.loaded) return;
    try {
      const {segments} = await get(`/api/segments/${encodeURIComponent(name)}`);
      if (!isCurrent()) return;
      Object.assign(this, {proposed: segments, loaded: true});
    } catch (error) {
      say(error.message);
    }
    this.onChange();
  }

  // All segments by time, with what was judged and what waits to be saved.
  get all() {
    const found = new Map(this.proposed.map(
      ([name, start, end, label, score]) => [
        name, {name, start, end, label, score, verdict: 'open'}]));
    const judge = (segments, pending) => {
      for (const [name, values] of Object.entries(segments)) {
        const [start, end, label, verdict] = values;
        found.set(name, {
          ...found.get(name), name, start, end, label, verdict, pending});
      }
    };
    judge(this.current.segments ?? {}, false);
    for (const action of this.saver.waiting) {
      if (action.kind === 'review' && action.video === this.current.name) {
        judge(action.segments, true);
      }
    }
    return [...found.values()].sort(
      (a, b) => a.start - b.start || a.end - b.end || (a.name < b.name ? -1 : 1));
  }

  get shown() {
    return this.all.filter(
      s => s.verdict !== 'open' || s.score >= this.threshold - 1e-9);
  }

  get open() {
    return this.shown.filter(s => s.verdict === 'open');
  }

  get selected() {
    return this.shown.find(s => s.name === this.name);
  }

  // The segment after (1) or before (-1) the selected one, or the playhead.
  step(direction) {
    const shown = this.shown;
    const at = shown.findIndex(s => s.name === this.name);
    const {time} = this.player;
    const next = at >= 0 ? shown[at + direction]
      : direction > 0 ? shown.find(s => s.end > time)
        : shown.findLast(s => s.start < time);
    if (!next) return say(shown.length ? 'No other segment' : this.nothing());
    this.select(next);
  }

  nothing() {
    const most = Math.max(...this.all.map(s => s.score ?? 0), 0);
    return most > 0
      ? `No segment from score ${this.threshold.toFixed(2)} on; the best has `
        + `${most.toFixed(2)}: minus lowers it`
      : 'No segment; m, at its start and at its end, adds one';
  }

  select(segment, isSaid = true) {
    this.name = segment.name;
    this.warned = false;
    this.player.seek(segment.start + 1e-4);
    if (isSaid) say(this.where());
    this.onChange();
  }

  // The selected segment, in words.
  where() {
    const shown = this.shown;
    const at = shown.findIndex(s => s.name === this.name);
    if (at < 0) return '';
    const {label, score, verdict} = shown[at];
    const sure = score === undefined ? '' : `, score ${score.toFixed(2)}`;
    return `${at + 1} of ${shown.length}: ${label} ${span(shown[at])}${sure}, `
      + verdict;
  }

  save(segments) {
    this.warned = false;
    this.send({kind: 'review', segments: Object.fromEntries(segments.map(
      s => [s.name, [s.start, s.end, s.label, s.verdict]]))});
  }

  // Judge the selected segment and go to the next that is open.
  judge(verdict) {
    const segment = this.selected;
    if (!segment) return say('No segment is selected: f goes to the next one');
    this.save([{...segment, verdict}]);
    const next = this.open.find(s => s.start >= segment.start) ?? this.open[0];
    if (next) this.select(next, false);
  }

  acceptAll() {
    const open = this.open.map(s => ({...s, verdict: 'accepted'}));
    if (!open.length) return say('No segment is open');
    for (let i = 0; i < open.length; i += MANY) {
      this.save(open.slice(i, i + MANY));
    }
  }

  // What is corrected is accepted.
  correct(change) {
    const segment = this.selected;
    if (!segment) return say('No segment is selected: f goes to the next one');
    const changed = {...segment, ...change(segment), verdict: 'accepted'};
    for (const edge of ['start', 'end']) {
      const time = Math.max(0, Math.min(changed[edge], this.player.length));
      changed[edge] = Math.round(time * 1e6) / 1e6;
    }
    if (!(changed.start < changed.end)) {
      return say('The end would not be after the start');
    }
    this.save([changed]);
    return changed;
  }

  // Set an edge to the frame on screen.
  set(edge) {
    const time = this.player.now;
    this.correct(() => ({[edge]: time}));
  }

  // Move an edge by a frame, and show it.
  nudge(edge, direction) {
    const {frame} = this.player;
    const by = direction * (Number.isFinite(frame) ? frame : FRAME);
    const changed = this.correct(s => ({[edge]: s[edge] + by}));
    if (changed) this.player.seek(changed[edge] + 1e-4);
  }

  setClass(index) {
    if (this.classes[index] === undefined) return;
    this.correct(() => ({label: this.classes[index]}));
  }

  nextClass() {
    this.correct(({label}) => ({label: this.classes[
      (this.classes.indexOf(label) + 1) % this.classes.length]}));
  }

  // The first mark is an edge, the second makes a segment between the two.
  addMark() {
    const time = this.player.now;
    if (this.mark === null) {
      this.mark = time;
      say(`Mark at ${clock(time)}: m at the other edge adds a segment`);
      return this.onChange();
    }
    const [start, end] = [this.mark, time].sort((a, b) => a - b);
    const label = this.current.labels[0] ?? this.selected?.label
      ?? this.classes[0];
    if (label === undefined) {
      return say('No class is known: the server takes --classes a,b,c');
    }
    if (start === end) return say('The other mark is at the same frame');
    this.mark = null;
    this.name = `added ${crypto.getRandomValues(new Uint32Array(2)).join('-')}`;
    this.save([{name: this.name, start, end, label, verdict: 'accepted'}]);
  }

  dropMark() {
    if (this.mark !== null) say('The mark is dropped');
    this.mark = null;
    this.onChange();
  }

  lower(direction) {
    const steps = Math.round(this.threshold / STEP) + direction;
    this.threshold = Math.max(0, steps) * STEP;
    localStorage.setItem(KEPT, this.threshold);
    say(`From score ${this.threshold.toFixed(2)} on: ${this.shown.length} `
      + `segments, ${this.open.length} open`);
    this.onChange();
  }

  // Returns whether the video is reviewed now; what is open needs a second key.
  finish() {
    const {reviewed} = this.current;
    const count = this.open.length;
    if (!reviewed && count && !this.warned) {
      this.warned = true;
      say(`${count} still open: a accepts, x rejects, y accepts all; d once `
        + 'more leaves them out');
      return false;
    }
    this.send({kind: 'reviewed', reviewed: !reviewed});
    return !reviewed;
  }

  // Returns what is shown.
  draw() {
    $('review').hidden = !this.on;
    if (!this.on) return [];
    const {shown} = this;
    const {reviewed} = this.current;
    $('threshold').textContent = `score ${this.threshold.toFixed(2)} and more: `
      + `${shown.length} segments, ${this.open.length} open`
      + `${reviewed ? '; the video is reviewed' : ''}`;
    list(shown, this.name, s => this.select(s));
    return shown;
  }
}
