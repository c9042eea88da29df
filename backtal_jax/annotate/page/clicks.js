// Clicks: made, removed, listed; and what is said of an act that is saved.

import {$, make, say} from '/page/dom.js';
import {clock} from '/page/timeline.js';

export const describe = ({kind, add, remove, note, labels, done}) => {
  if (add) return `${add[1]} click at ${clock(add[0])}`;
  if (remove) return 'click removed';
  if (labels) return `labels: ${labels.join(', ') || 'none'}`;
  if (kind === 'done') return done ? 'video done' : 'video not done';
  return note === undefined ? kind : `answer at ${clock(note)}`;
};

export class Clicks {
  // proposals: while a moment of them is asked about, keys answer.
  constructor(player, saver, proposals, send) {
    Object.assign(this, {player, saver, proposals, send});
  }

  add(label = 'background') {
    this.send({kind: 'click', time: this.player.now, label});
  }

  removeNearest(clicks) {
    const far = c => Math.abs(c.time - this.player.time);
    const going = new Set(this.saver.waiting.map(action => action.click));
    const [nearest] = clicks.filter(c => !going.has(c.id)).sort(
      (a, b) => far(a) - far(b));
    if (!nearest) return say('No click to remove');
    this.send({kind: 'remove', click: nearest.id});
  }

  // The key answers, or does something else.
  answerOr(answer, clicks, otherwise = () => {}, label = null) {
    if (!this.proposals.asked) return otherwise();
    this.proposals.answer(answer, clicks, label);
  }

  // Returns what is drawn, waiting ones too.
  draw({name, clicks}) {
    const waiting = this.saver.waiting.filter(
      a => a.kind === 'click' && a.video === name);
    const kind = label => label === 'background' ? 'background' : 'action';
    const shown = [
      ...clicks, ...waiting.map(a => ({...a, pending: true})),
    ].map(c => ({...c, kind: kind(c.label)})).sort((a, b) => a.time - b.time);
    $('clicks').replaceChildren(...shown.map(c => make(
      'li', make('button', `${clock(c.time)} ${c.label}`,
        {onclick: () => this.player.seek(c.time + 1e-4)}),
      {className: `${c.kind} ${c.pending ? 'pending' : ''}`})));
    return shown;
  }
}
