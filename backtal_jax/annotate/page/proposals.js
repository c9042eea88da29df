// What a model finds in the video, and the moments that it proposes.

import {$, get, make, say} from '/page/dom.js';
import {clock} from '/page/timeline.js';

export class Proposals {
  // send(action) saves an answer; onChange draws.
  constructor(player, {proposals, actions}, send, onChange) {
    Object.assign(this, {player, wanted: proposals, actions, send, onChange});
    $('queue').hidden = !proposals;
    this.clear();
  }

  clear() {
    Object.assign(this, {asked: null, curves: {}, moments: []});
    this.player.loop(null);
  }

  async load(name, current) {
    if (!this.wanted) return;
    try {
      const found = await get(`/api/proposals/${encodeURIComponent(name)}`);
      if (!current()) return;
      Object.assign(this, {curves: found.curves, moments: found.proposals});
    } catch (error) {
      say(error.message);
    }
    this.onChange();
  }

  next() {
    const [first] = this.moments;
    if (first) return this.ask(first);
    this.leave();
    say('No proposal (left) in this video');
  }

  ask(proposal) {
    const [time, reason] = proposal;
    const last = this.player.length - 0.05;
    this.asked = proposal;
    this.player.loop([Math.max(0, time - 1), Math.min(time + 1, last)]);
    say(`${clock(time)}, ${reason}: background, action or skip?`);
    this.onChange();
  }

  leave() {
    this.asked = null;
    this.player.loop(null);
    this.onChange();
  }

  // While a moment is asked about, the key answers.
  answer(answer, clicks, label) {
    const [time, reason] = this.asked;
    const found = Object.entries(this.curves).map(([name, values]) => [
      values[Math.floor(time / this.player.length * values.length)], name]);
    if (answer === 'action' && this.actions) {
      label ??= found.sort((x, y) => y[0] - x[0])[0]?.[1];
    }
    const click = reason === 'check again'
      ? clicks.find(c => c.time === time)?.id : undefined;
    this.send({kind: 'answer', time, answer, label, click});
  }

  draw() {
    $('asked').textContent = Object.keys(this.curves).length
      ? `curves: ${Object.keys(this.curves).join(', ')}` : '';
    $('proposals').replaceChildren(...this.moments.map(moment => {
      const [time, reason, value] = moment;
      const item = make('button', `${clock(time)} ${reason} ${value.toFixed(2)}`,
        {onclick: () => this.ask(moment)});
      item.setAttribute('aria-current', String(moment === this.asked));
      return make('li', item);
    }));
  }
}
