// What was done but is not on disk yet. It waits in localStorage, so that a
// closed tab or a server that was killed loses nothing: whoever opens the page
// of the same file again sends it. The server does nothing twice.

import {parse} from '/page/dom.js';

export class Saver {
  constructor(prefix, onSaved, onChange) {
    Object.assign(this, {prefix, onSaved, onChange, waiting: [], problem: ''});
    for (const name of Object.keys(localStorage).sort()) {
      if (name.startsWith(prefix)) {
        this.waiting.push(JSON.parse(localStorage.getItem(name)));
      }
    }
    this.run();
  }

  add(action) {
    const random = crypto.getRandomValues(new Uint32Array(2)).join('-');
    action.key = `${Date.now().toString(36)}-${random}`;
    localStorage.setItem(this.prefix + action.key, JSON.stringify(action));
    this.waiting.push(action);
    this.onChange();
    this.run();
  }

  async run() {
    if (this.running) return;
    this.running = true;
    while (this.waiting.length) {
      const action = this.waiting[0];
      let answer;
      try {
        const response = await fetch('/api/act', {
          method: 'POST', body: JSON.stringify(action), keepalive: true,
        });
        answer = {...await parse(response), status: response.status};
      } catch {
        answer = {status: 0, problem: 'the server does not answer'};
      }
      const {status} = answer;
      if (status === 0 || status === 403 || status >= 500) {
        this.problem = answer.problem;  // nothing is wrong with the action
        this.onChange();
        await new Promise(resolve => setTimeout(resolve, 1000));
        continue;
      }
      this.problem = '';
      this.waiting.shift();
      localStorage.removeItem(this.prefix + action.key);
      this.onChange();
      this.onSaved(action, answer);
    }
    this.running = false;
  }
}
