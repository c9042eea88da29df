// The list of videos: how many clicks each has, which are done.

import {$, get, make, say} from '/page/dom.js';

const LISTED = 200;  // videos at a time

const matches = name => name.toLowerCase().includes(
  $('filter').value.toLowerCase());

export class Videos {
  constructor(videos, open) {
    this.rows = new Map(videos.map(
      ([name, clicks, done, reviewed]) => [name, {clicks, done, reviewed}]));
    this.names = [...this.rows.keys()];
    this.open = open;
    this.current = '';
    $('filter').addEventListener('input', () => this.draw());
    $('order').onclick = () => this.order();
  }

  // The video after (1) or before (-1) the current one that is wanted.
  neighbour(direction, wanted = () => true) {
    const names = [...this.rows.keys()].filter(
      name => name === this.current || matches(name));
    const at = names.indexOf(this.current);
    for (let i = 1; i < names.length; i++) {
      const name = names[(at + direction * i + i * names.length) % names.length];
      if (wanted(this.rows.get(name))) return name;
    }
    return this.current;
  }

  // What a look is worth most first, or by name again.
  async order() {
    const wanted = $('order').ariaPressed !== 'true';
    say('Asking for the order …');
    try {
      const names = wanted ? (await get('/api/order')).names : this.names;
      this.rows = new Map(names.map(name => [name, this.rows.get(name)]));
      $('order').ariaPressed = String(wanted);
      say(wanted ? 'Never clicked first, of these what the model is least sure of'
        : 'Videos by name');
      this.draw();
    } catch (error) {
      say(error.message);
    }
  }

  update({name, clicks, done, reviewed}) {
    this.rows.set(name, {clicks: clicks.length, done, reviewed});
    this.draw();
  }

  // A part of the videos that the filter leaves: pages of thousands are slow.
  draw() {
    const list = $('videos');
    const names = [...this.rows.keys()].filter(matches);
    const from = Math.max(0, names.indexOf(this.current) - LISTED / 2);
    const part = names.slice(from, from + LISTED);
    const more = names.length - part.length;
    const focused = list.contains(document.activeElement);
    list.replaceChildren(...part.map(name => make('li', this.button(name))),
      ...(more ? [make('li', `and ${more} more: write a part of a name`)] : []));
    const item = list.querySelector('[aria-current="true"]');
    item?.scrollIntoView({block: 'nearest'});
    if (focused) item?.focus();
    const rows = [...this.rows.values()];
    const [done, reviewed] = ['done', 'reviewed'].map(
      what => rows.filter(row => row[what]).length);
    $('progress').textContent = `${done} of ${rows.length} videos done`
      + (reviewed ? `, ${reviewed} reviewed` : '');
  }

  button(name) {
    const {clicks, done, reviewed} = this.rows.get(name);
    const item = make('button', [
      make('span', name, {className: 'name', title: name}),
      make('span', `${clicks || ''} ${done ? '✓' : ''}${reviewed ? '▣' : ''}`,
        {className: 'much'}),
    ], {onclick: () => this.open(name),
      ariaLabel: `${name}, ${clicks} clicks${done ? ', done' : ''}`
        + (reviewed ? ', reviewed' : '')});
    item.setAttribute('aria-current', String(name === this.current));
    return item;
  }
}
