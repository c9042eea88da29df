// The page: what the keys do, and what is shown of it.

import {Player} from '/page/player.js';
import {Saver} from '/page/saver.js';
import {Timeline, clock} from '/page/timeline.js';

const $ = id => document.getElementById(id);
const video = $('video');
const player = new Player(video, () => frameShown());
const timeline = new Timeline($('timeline'), player);
const LISTED = 200;  // videos at a time
const LONGEST_PAUSE = 60;  // seconds; a longer one is no work
let state, saver, rows = new Map();
let current = {name: '', clicks: [], labels: []};
let worth = {curves: {}, proposals: []}, asked = null, probing = false;

// Keys, what they say, what they do; those with `once` do not repeat.
const KEYS = [
  ['b', 'background click', () => answerOr('background', () => click()), 'once'],
  ['a', 'proposal is an action', () => answerOr('action'), 'once'],
  ['s', 'skip a proposal', () => answerOr('skip'), 'once'],
  ['q', 'next proposal', () => nextProposal(), 'once'],
  ['Escape', 'leave the proposals', () => leave(), 'once'],
  ['u', 'undo, across videos', () => send({kind: 'undo'}), 'once'],
  ['x', 'remove nearest click', () => removeNearest(), 'once'],
  [' ', 'play or pause', () => player.toggle(), 'once'],
  ['j', 'backwards', () => player.backward(), 'once'],
  ['k', 'stop', () => player.pause(), 'once'],
  ['l', 'play, faster', () => player.forward(), 'once'],
  [',', 'a frame back', () => player.step(-1)],
  ['.', 'a frame on', () => player.step(1)],
  ['ArrowLeft', '1 s back', () => player.jump(-1)],
  ['ArrowRight', '1 s on', () => player.jump(1)],
  ['Shift+ArrowLeft', '5 s back', () => player.jump(-5)],
  ['Shift+ArrowRight', '5 s on', () => player.jump(5)],
  ['[', 'slower', () => player.speed(-1)],
  [']', 'faster', () => player.speed(1)],
  ['n', 'next video', () => open(neighbour(1)), 'once'],
  ['p', 'previous video', () => open(neighbour(-1)), 'once'],
  ['d', 'video done', () => toggleDone(), 'once'],
  ['?', 'help', () => $('help').showModal(), 'once'],
];
const SHOWN = {' ': 'space', 'Shift+ArrowLeft': 'shift ←',
  'Shift+ArrowRight': 'shift →', ArrowLeft: '←', ArrowRight: '→', Escape: 'esc'};
const BOUND = new Map(KEYS.map(([key, , run, once]) => [key, {run, once}]));

const say = text => { $('status').textContent = text; };

function make(tag, text, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...[text].flat());
  return element;
}

async function get(url) {
  const response = await fetch(url);
  const isJson = response.headers.get('content-type')?.includes('json');
  const answer = isJson ? await response.json() : {problem: await response.text()};
  if (!response.ok) throw new Error(answer.problem);
  return answer;
}

// Seconds of work since they were last sent: while it plays or keys are
// pressed; a pause over a minute is left out as a whole.
const work = {last: performance.now(), spent: 0};
function busy() {
  const now = performance.now();
  const pause = (now - work.last) / 1000;
  if (pause <= LONGEST_PAUSE) work.spent += pause;
  work.last = now;
}

function send(action) {
  busy();
  const spent = Math.round(work.spent * 1000) / 1000;
  work.spent = 0;
  saver.add({video: current.name, spent, ...action});
}

function sendSpent(least) {
  if (work.spent >= least && current.name) send({kind: 'spent'});
}

const describe = ({kind, add, remove, note, labels, done}) => {
  if (add) return `${add[1]} click at ${clock(add[0])}`;
  if (remove) return 'click removed';
  if (labels) return `labels: ${labels.join(', ') || 'none'}`;
  if (kind === 'done') return done ? 'video done' : 'video not done';
  return note === undefined ? kind : `answer at ${clock(note)}`;
};

// The server has it on disk.
async function saved(action, {event, video: changed, problem}) {
  if (problem) return say(`Not done: ${problem}`);
  if (changed) {
    update(changed);
    if (changed.name === current.name) current = changed;
    if (event && action.kind === 'undo' && changed.name !== current.name) {
      await open(changed.name);
    }
  }
  const where = changed?.name === current.name ? '' : ` in ${changed?.name}`;
  if (action.kind === 'undo') {
    say(event ? `Undone: ${describe(event)}` : 'Nothing to undo');
  } else if (event && !['spent', 'opened'].includes(action.kind)) {
    say(`Saved: ${describe(event)}${where}`);
  }
  draw();
  if (action.kind !== 'spent') await loadWorth();
  if (action.kind === 'answer' && asked) nextProposal();
}

function savedState() {
  const count = saver.waiting.filter(a => a.kind !== 'spent').length;
  const waits = `${count} not saved yet`;
  $('saved').className = saver.problem ? 'waiting' : '';
  $('saved').textContent = !count && !saver.problem ? 'all saved'
    : saver.problem ? `${waits}: ${saver.problem}` : waits;
  draw();
}

function click(label = 'background') {
  if (!player.ready) return say('No frame on screen yet');
  send({kind: 'click', time: player.now, label});
}

function removeNearest() {
  const far = c => Math.abs(c.time - player.time);
  const going = new Set(saver.waiting.map(action => action.click));
  const [nearest] = current.clicks.filter(c => !going.has(c.id)).sort(
    (a, b) => far(a) - far(b));
  if (!nearest) return say('No click to remove');
  send({kind: 'remove', click: nearest.id});
}

function toggleDone() {
  const done = !current.done;
  send({kind: 'done', done});
  if (done) open(neighbour(1, row => !row.done));
}

function neighbour(direction, wanted = () => true) {
  const names = [...rows.keys()].filter(
    name => name === current.name || matches(name));
  const at = names.indexOf(current.name);
  for (let i = 1; i < names.length; i++) {
    const name = names[(at + direction * i + i * names.length) % names.length];
    if (wanted(rows.get(name))) return name;
  }
  return current.name;
}

async function open(name) {
  if (name === current.name) return;
  sendSpent(0.5);
  leave();
  current = {name, clicks: [], labels: []};
  worth = {curves: {}, proposals: []};
  $('problem').hidden = true;
  $('name').textContent = name;
  document.title = name;
  history.replaceState(null, '', `#${encodeURIComponent(name)}`);
  listVideos();
  player.open(`/video/${encodeURIComponent(name)}`);
  frameShown();
  await refresh();
}

async function refresh() {
  const name = current.name;
  try {
    const found = await get(`/api/video/${encodeURIComponent(name)}`);
    if (name !== current.name) return;
    current = found;
    update(found);
    draw();
    await opened();
  } catch (error) {
    say(error.message);
  }
}

// The server checks times against the duration, which the browser knows.
async function opened() {
  if (video.readyState && video.duration === Infinity) {
    probing = true;  // the file does not tell: look at its end
    video.currentTime = 1e9;
    return;
  }
  if (probing && player.duration) {
    probing = false;
    video.currentTime = 0;
  }
  if (!current.labels || !player.duration || current.sent) return;
  current.sent = true;
  if (current.duration === null) {
    send({kind: 'opened', duration: player.duration});
  } else {
    await loadWorth();
  }
  draw();
}

async function loadWorth() {
  const name = current.name;
  if (!state.proposals || !current.duration) return;
  try {
    const found = await get(`/api/proposals/${encodeURIComponent(name)}`);
    if (name === current.name) worth = found;
  } catch (error) {
    say(error.message);
  }
  draw();
}

function nextProposal() {
  const [first] = worth.proposals;
  if (!first) {
    leave();
    return say('No proposal (left) in this video');
  }
  ask(first);
}

function ask(proposal) {
  const [time, reason] = proposal;
  asked = proposal;
  player.loop([Math.max(0, time - 1), Math.min(time + 1, player.duration - 0.05)]);
  say(`${clock(time)}, ${reason}: background, action or skip?`);
  draw();
}

function leave() {
  asked = null;
  player.loop(null);
  draw();
}

// While a moment is asked about, the key answers; else it does something else.
function answerOr(answer, otherwise = () => {}, label = null) {
  if (!asked) return otherwise();
  const [time, reason] = asked;
  const found = Object.entries(worth.curves).map(([name, values]) => [
    values[Math.floor(time / player.duration * values.length)], name]);
  if (answer === 'action' && state.actions) {
    label ??= found.sort((x, y) => y[0] - x[0])[0]?.[1];
  }
  const checked = reason === 'check again'
    ? current.clicks.find(c => c.time === time)?.id : undefined;
  send({kind: 'answer', time, answer, label, click: checked});
}

function update({name, clicks, done}) {
  rows.set(name, {clicks: clicks.length, done});
  listVideos();
}

// A part of the videos that the filter leaves: pages of thousands are slow.
function listVideos() {
  const names = [...rows.keys()].filter(matches);
  const from = Math.max(0, names.indexOf(current.name) - LISTED / 2);
  const part = names.slice(from, from + LISTED);
  const more = names.length - part.length;
  const focused = $('videos').contains(document.activeElement);
  $('videos').replaceChildren(...part.map(name => {
    const {clicks, done} = rows.get(name);
    const item = make('button', [
      make('span', name, {className: 'name', title: name}),
      make('span', `${clicks || ''} ${done ? '✓' : ''}`, {className: 'much'}),
    ], {onclick: () => open(name),
      ariaLabel: `${name}, ${clicks} clicks${done ? ', done' : ''}`});
    item.setAttribute('aria-current', String(name === current.name));
    return make('li', item);
  }), ...(more ? [make('li', `and ${more} more: write a part of a name`)] : []));
  const item = $('videos').querySelector('[aria-current="true"]');
  item?.scrollIntoView({block: 'nearest'});
  if (focused) item?.focus();
  const done = [...rows.values()].filter(row => row.done).length;
  $('progress').textContent = `${done} of ${rows.size} videos done`;
}

const matches = name => name.toLowerCase().includes(
  $('filter').value.toLowerCase());

function draw() {
  if (!saver) return;
  const kind = label => label === 'background' ? 'background' : 'action';
  const waiting = saver.waiting.filter(
    a => a.kind === 'click' && a.video === current.name);
  const clicks = [
    ...current.clicks, ...waiting.map(a => ({...a, pending: true})),
  ].map(c => ({...c, kind: kind(c.label)})).sort((a, b) => a.time - b.time);
  timeline.draw(clicks, worth.proposals, worth.curves);
  const button = (time, text, onclick) => make('button', text, {onclick});
  $('clicks').replaceChildren(...clicks.map(c => make(
    'li', button(c.time, `${clock(c.time)} ${c.label}`,
      () => player.seek(c.time + 1e-4)),
    {className: `${c.kind} ${c.pending ? 'pending' : ''}`})));
  $('queue').hidden = !state.proposals;
  $('asked').textContent = Object.keys(worth.curves).length
    ? `curves: ${Object.keys(worth.curves).join(', ')}` : '';
  $('proposals').replaceChildren(...worth.proposals.map(p => {
    const item = button(
      p[0], `${clock(p[0])} ${p[1]} ${p[2].toFixed(2)}`, () => ask(p));
    item.setAttribute('aria-current', String(p === asked));
    return make('li', item);
  }));
  for (const box of $('labels').querySelectorAll('input')) {
    box.checked = current.labels.includes(box.value);
  }
}

function frameShown() {
  if (!video.paused) busy();
  $('time').textContent = `${clock(player.time)} / ${clock(player.duration)}`;
  timeline.move();
}

function keyOf(event) {
  const {key, shiftKey} = event;
  if (key.startsWith('Arrow')) return (shiftKey ? 'Shift+' : '') + key;
  return key.length === 1 ? key.toLowerCase() : key;
}

function pressed(event) {
  busy();
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
  const bound = BOUND.get(keyOf(event));
  const number = /^[1-9]$/.test(event.key) && state.actions
    ? state.classes[event.key - 1] : undefined;
  if (!bound && number === undefined) return;
  event.preventDefault();
  if (event.repeat && (bound?.once || number)) return;
  if (number === undefined) return bound.run();
  answerOr('action', () => click(number), number);
}

function buildKeys() {
  const shown = KEYS.filter(
    ([key]) => state.proposals || !['a', 's', 'q', 'Escape'].includes(key));
  $('keys').replaceChildren(...shown.map(([key, text, run]) => make('li', make(
    'button', [make('kbd', SHOWN[key] ?? key), text], {onclick: run}))));
  if (state.actions) {
    $('keys').prepend(make('li', make('span', [
      make('kbd', '1…9'), ' action click of a class'])));
  }
}

function buildLabels() {
  $('labels').append(...state.classes.map((label, i) => {
    const box = make('input', [], {type: 'checkbox', value: label});
    box.onchange = () => {
      const checked = [...$('labels').querySelectorAll('input:checked')];
      send({kind: 'labels', labels: checked.map(b => b.value)});
    };
    const key = state.actions && i < 9 ? [make('kbd', `${i + 1}`), ' '] : [];
    return make('label', [box, ' ', ...key, label]);
  }));
  if (!state.classes.length) {
    $('labels').append('none known: the server takes --classes a,b,c');
  }
}

function playProblem() {
  const name = current.name;
  const problem = $('problem');
  problem.replaceChildren(
    `This browser cannot play ${name}, or its file is gone. A copy that it can `
    + 'play is made by ', make('code', state.transcode));
  problem.hidden = false;
  say(`Cannot play ${name}`);
}

async function start() {
  state = await get('/api/state');
  rows = new Map(state.videos.map(
    ([name, clicks, done]) => [name, {clicks, done}]));
  buildKeys();
  buildLabels();
  saver = new Saver(
    `clicks:${state.id}:${state.annotator}:`, saved, savedState);
  document.addEventListener('keydown', pressed);
  document.addEventListener('pointerdown', busy);
  // After a mouse click the keys are the player's again.
  document.addEventListener('click', event => {
    if (event.detail && event.target.closest('aside, nav, main')
        && event.target !== $('filter')) $('player').focus();
  });
  $('filter').addEventListener('input', listVideos);
  for (const event of ['loadedmetadata', 'durationchange']) {
    video.addEventListener(event, opened);
  }
  video.addEventListener('error', playProblem);
  video.addEventListener('ratechange', () => {
    $('speed').textContent = `${video.playbackRate}×`;
  });
  setInterval(() => sendSpent(15), 5000);
  addEventListener('pagehide', () => sendSpent(0.5));
  // Another tab may have clicked meanwhile.
  addEventListener('focus', () => { if (!saver.waiting.length) refresh(); });
  savedState();
  $('player').focus();
  const asked = decodeURIComponent(location.hash.slice(1));
  const first = state.videos.find(([, , done]) => !done) ?? state.videos[0];
  await open(rows.has(asked) ? asked : first[0]);
  say(`${state.annotator}'s clicks in ${state.file}`);
}

start().catch(error => say(error.message));
