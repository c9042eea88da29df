// The checkboxes of the video's labels.

import {$, make} from '/page/dom.js';

export class Labels {
  constructor({classes, actions}, onChange) {
    const boxes = () => [...$('labels').querySelectorAll('input')];
    this.draw = labels => boxes().forEach(box => {
      box.checked = labels.includes(box.value);
    });
    $('labels').append(...classes.map((label, i) => {
      const box = make('input', [], {type: 'checkbox', value: label});
      box.onchange = () => onChange(
        boxes().filter(b => b.checked).map(b => b.value));
      const key = actions && i < 9 ? [make('kbd', `${i + 1}`), ' '] : [];
      return make('label', [box, ' ', ...key, label]);
    }));
    if (!classes.length) {
      $('labels').append('none known: the server takes --classes a,b,c');
    }
  }
}
