// Segments in words and as a list.

import {$, make} from '/page/dom.js';
import {clock} from '/page/timeline.js';

export const span = ({start, end}) => `${clock(start)}–${clock(end)}`;

// In words, what is saved: an event of the server.
export function describeReview({segments, reviewed}) {
  if (segments === undefined) {
    return reviewed ? 'video reviewed' : 'video not reviewed';
  }
  const all = Object.values(segments);
  if (all.length > 1) return `${all.length} segments ${all[0][3]}`;
  const [[start, end, label, verdict]] = all;
  return `${verdict} ${label} ${span({start, end})}`;
}

// Show segments as buttons; one has a name that is the selected one's.
export function list(segments, selected, onSelect) {
  $('segments').replaceChildren(...segments.map(s => {
    const sign = {accepted: '✓', rejected: '✗', open: '?'}[s.verdict];
    const score = s.score === undefined ? '' : ` ${s.score.toFixed(2)}`;
    const item = make('button', `${sign} ${span(s)} ${s.label}${score}`, {
      onclick: () => onSelect(s),
      ariaLabel: `${s.verdict}: ${s.label} ${span(s)}${score}`});
    item.setAttribute('aria-current', String(s.name === selected));
    return make('li', item,
      {className: `${s.verdict} ${s.pending ? 'pending' : ''}`});
  }));
  $('segments').querySelector('[aria-current="true"]')?.scrollIntoView(
    {block: 'nearest'});
}
