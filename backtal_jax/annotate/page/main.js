// The page: what the keys do, and what is shown of it.

import {Clicks, describe} from '/page/clicks.js';
import {$, get, make, say} from '/page/dom.js';
import {Keys} from '/page/keys.js';
import {Labels} from '/page/labels.js';
import {Player} from '/page/player.js';
import {Proposals} from '/page/proposals.js';
import {Saver} from '/page/saver.js';
import {Timeline, clock} from '/page/timeline.js';
import {Videos} from '/page/videos.js';
import {work} from '/page/work.js';

const video = $('video');
const player = new Player(video, frameShown, opened);
const timeline = new Timeline($('timeline'), player);
let state, saver, videos, labels, proposals, clicks;
let current = {name: '', clicks: [], labels: []};

// Keys, what they say, what they do; those with `once` do not repeat.
const KEYS = [
  ['b', 'background click', () => answerOr('background', () => click()), 'once'],
  ['a', 'proposal is an action', () => answerOr('action'), 'once'],
  ['s', 'skip a proposal', () => answerOr('skip'), 'once'],
  ['q', 'next proposal', () => proposals.next(), 'once'],
  ['Escape', 'leave the proposals', () => proposals.leave(), 'once'],
  ['u', 'undo, across videos', () => send({kind: 'undo'}), 'once'],
  ['x', 'remove nearest click', () => clicks.removeNearest(current.clicks), 'once'],
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
  ['n', 'next video', () => open(videos.neighbour(1)), 'once'],
  ['p', 'previous video', () => open(videos.neighbour(-1)), 'once'],
  ['d', 'video done', () => toggleDone(), 'once'],
  ['?', 'help', () => $('help').showModal(), 'once'],
];
const OF_PROPOSALS = ['a', 's', 'q', 'Escape'];

function send(action) {
  saver.add({video: current.name, spent: work.take(), ...action});
}

function sendSpent(least) {
  if (work.spent >= least && current.name) send({kind: 'spent'});
}

// The server has it on disk.
async function saved(action, {event, video: changed, problem}) {
  if (problem) return say(`Not done: ${problem}`);
  if (changed) {
    videos.update(changed);
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
  if (action.kind !== 'spent') await loadProposals();
  if (action.kind === 'answer' && proposals.asked) proposals.next();
}

function savedState() {
  const count = saver.waiting.filter(a => a.kind !== 'spent').length;
  const waits = `${count} not saved yet`;
  $('saved').className = saver.problem ? 'waiting' : '';
  $('saved').textContent = !count && !saver.problem ? 'all saved'
    : saver.problem ? `${waits}: ${saver.problem}` : waits;
  draw();
}

function click(label) {
  if (!player.ready) return say('No frame on screen yet');
  tellLength(true);
  clicks.add(label);
}

function toggleDone() {
  const done = !current.done;
  send({kind: 'done', done});
  if (done) open(videos.neighbour(1, row => !row.done));
}

const answerOr = (answer, ...others) => clicks.answerOr(
  answer, current.clicks, ...others);

async function open(name) {
  if (name === current.name) return;
  sendSpent(0.5);
  current = {name, clicks: [], labels: []};
  proposals.clear();
  $('problem').hidden = true;
  $('name').textContent = name;
  document.title = name;
  history.replaceState(null, '', `#${encodeURIComponent(name)}`);
  videos.current = name;
  videos.draw();
  player.open(`/video/${encodeURIComponent(name)}`);
  frameShown();
  await refresh();
}

async function refresh() {
  const {name} = current;
  try {
    const found = await get(`/api/video/${encodeURIComponent(name)}`);
    if (name !== current.name) return;
    current = found;
    player.pictures = found.pictures;
    videos.update(found);
    frameShown();
    draw();
    await opened();
  } catch (error) {
    say(error.message);
  }
}

async function opened() {
  if (!tellLength()) await loadProposals();
}

// The server checks times against the length, which it knows of some files; of
// others the browser does, and learns more as it plays.
function tellLength(isUrgent = false) {
  if (!player.ready) return false;
  if (player.pictures === undefined && !isUrgent) return false;
  const {length} = player;
  if (!length) player.findEnd();
  if (!length || Math.abs(length - current.shown) < 0.001) return false;
  current.shown = length;
  send({kind: 'opened', duration: length});
  return true;
}

async function loadProposals() {
  const {name, duration} = current;
  if (duration) await proposals.load(name, () => name === current.name);
}

function draw() {
  if (!clicks) return;
  timeline.draw(clicks.draw(current), proposals.moments, proposals.curves);
  proposals.draw();
  labels.draw(current.labels);
}

function frameShown() {
  if (!video.paused) work.go();
  $('time').textContent = `${clock(player.time)} / ${clock(player.length)}`;
  timeline.move();
}

function playProblem() {
  const problem = $('problem');
  problem.replaceChildren(
    `This browser cannot play ${current.name}, or its file is gone. A copy `
    + 'that it can play is made by ', make('code', state.transcode));
  problem.hidden = false;
  say(`Cannot play ${current.name}`);
}

async function start() {
  state = await get('/api/state');
  videos = new Videos(state.videos, open);
  labels = new Labels(state, labels => send({kind: 'labels', labels}));
  proposals = new Proposals(player, state, send, draw);
  new Keys(KEYS, key => state.proposals || !OF_PROPOSALS.includes(key),
    state.actions && (i => state.classes[i] !== undefined && (() => answerOr(
      'action', () => click(state.classes[i]), state.classes[i]))));
  saver = new Saver(
    `clicks:${state.id}:${state.annotator}:`, saved, savedState);
  clicks = new Clicks(player, saver, proposals, send);
  video.addEventListener('durationchange', opened);
  video.addEventListener('error', playProblem);
  video.addEventListener('ratechange', () => {
    if (!player.slow) $('speed').textContent = `${video.playbackRate}×`;
  });
  setInterval(() => sendSpent(15), 5000);
  addEventListener('pagehide', () => sendSpent(0.5));
  // Another tab may have clicked meanwhile.
  addEventListener('focus', () => { if (!saver.waiting.length) refresh(); });
  savedState();
  $('player').focus();
  const asked = decodeURIComponent(location.hash.slice(1));
  const first = state.videos.find(([, , done]) => !done) ?? state.videos[0];
  say(`${state.annotator}'s clicks in ${state.file}`);
  await open(videos.rows.has(asked) ? asked : first[0]);
}

start().catch(error => say(error.message));
