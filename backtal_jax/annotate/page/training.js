// What the page runs: features in the background, and trainings.

import {$, get, parse, say} from '/page/dom.js';

const OFTEN = 2000;  // milliseconds between two looks
const DOING = {features: 'Making features', prepare: 'Preparing',
  train: 'Training', predict: 'Finding segments'};

export class Training {
  // onSegments is called when there are new segments.
  constructor(onSegments) {
    Object.assign(this, {onSegments, last: null});
    $('project').hidden = false;
    $('train').onclick = () => this.ask('train');
    $('cancel').onclick = () => this.ask('cancel');
    this.look();
    setInterval(() => this.look(), OFTEN);
  }

  async ask(what) {
    try {
      const response = await fetch(`/api/job/${what}`, {method: 'POST'});
      const answer = await parse(response);
      if (!response.ok) throw new Error(answer.problem);
      this.show(answer);
    } catch (error) {
      say(`Not done: ${error.message}`);
    }
  }

  async look() {
    if (document.hidden) return;
    try {
      this.show(await get('/api/job'));
    } catch {
      // The line of what is saved says that the server does not answer.
    }
  }

  show(job) {
    const before = this.last ?? job;
    this.last = job;
    const {doing, share, left, losses, curve, problem, round} = job;
    const much = share === null ? '' : ` ${Math.round(100 * share)} %`;
    const rest = left ? `, ${left} left` : '';
    $('doing').textContent = doing
      ? `${DOING[doing] ?? doing}${much}${rest}` : problem || this.idle(job);
    $('doing').className = !doing && problem ? 'problem' : '';
    $('losses').textContent = Object.entries(losses).map(
      ([name, value]) => `${name} ${value.toPrecision(3)}`).join(', ');
    const [low, high] = [Math.min(...curve), Math.max(...curve)];
    $('curve').setAttribute('d', curve.length < 2 ? '' : `M${curve.map((y, i) => [
      i / (curve.length - 1), 0.95 - 0.9 * (y - low) / (high - low || 1),
    ]).join('L')}`);
    $('train').textContent = job.resumable ? 'Go on training' : 'Train';
    $('train').disabled = doing && doing !== 'features';
    $('cancel').disabled = !doing;
    if (doing !== before.doing) {
      say(doing ? `${DOING[doing] ?? doing} …` : problem || this.idle(job));
    }
    if (job.segments !== before.segments) {
      say(`Training ${round} is done: the segments are here`);
      this.onSegments();
    }
  }

  idle({round, segments, agreement, failed}) {
    const without = failed
      ? `; ${failed} videos have no features, see features.log` : '';
    if (!segments) return `No training yet${without}`;
    const worth = agreement?.value;
    return `Segments of training ${segments}`
      + (Number.isFinite(worth)
        ? `, click agreement ${(100 * worth).toFixed(1)} %` : '')
      + (round > segments ? `; training ${round} did not end` : '') + without;
  }
}
