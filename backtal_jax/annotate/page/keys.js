// The keyboard, and the list of keys, each of which is a button as well.

import {$, make} from '/page/dom.js';
import {work} from '/page/work.js';

const SHOWN = {' ': 'space', 'Shift+ArrowLeft': 'shift ←',
  'Shift+ArrowRight': 'shift →', ArrowLeft: '←', ArrowRight: '→', Escape: 'esc',
  '-': '−', '=': '+ ='};

function keyOf({key, shiftKey}) {
  if (key === '+') return '=';  // where a keyboard has it
  if (key.startsWith('Arrow')) return (shiftKey ? 'Shift+' : '') + key;
  return key.length === 1 ? key.toLowerCase() : key;
}

export class Keys {
  constructor() {
    document.addEventListener('keydown', event => this.press(event));
    document.addEventListener('pointerdown', () => work.go());
    // After a mouse click the keys are the player's again.
    document.addEventListener('click', ({detail, target}) => {
      if (detail && target.closest('aside, nav, main')
          && target !== $('filter')) $('player').focus();
    });
  }

  // keys: [key, what it says, what it does, 'once' if it does not repeat];
  // what: of the keys 1…9, and number(i), where there is one, returns it.
  use(keys, what, number) {
    this.number = number;
    this.bound = new Map(keys.map(([key, , run, once]) => [key, {run, once}]));
    $('keys').replaceChildren(...keys.map(([key, text, run]) => make(
      'li', make('button', [make('kbd', SHOWN[key] ?? key), text],
        {onclick: run}))));
    if (number) {
      $('keys').prepend(make('li', make('span', [make('kbd', '1…9'), what])));
    }
  }

  press(event) {
    work.go();
    const {target} = event;
    // AltGr, which some keyboards need for [ and ], says ctrl and alt, too.
    const other = (event.ctrlKey || event.altKey || event.metaKey)
      && !event.getModifierState('AltGraph');
    if (other || $('help').open || event.isComposing) return;
    if (target === $('filter')) {
      if (event.key === 'Escape') $('player').focus();
      return;
    }
    // Space and return belong to what has the focus.
    if (event.key === ' ' && target.matches('button, input')) return;
    const isNumber = this.number && /^[1-9]$/.test(event.key);
    const bound = isNumber
      ? {run: this.number(event.key - 1), once: 'once'}
      : this.bound.get(keyOf(event));
    if (!bound?.run) return;
    event.preventDefault();
    if (!event.repeat || !bound.once) bound.run();
  }
}
