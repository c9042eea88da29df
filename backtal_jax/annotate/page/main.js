// The page: what the keys do, and what is shown of it.

import {ofClicks, ofReview} from '/page/bindings.js';
import {Clicks, describe} from '/page/clicks.js';
import {$, get, make, say} from '/page/dom.js';
import {Keys} from '/page/keys.js';
import {Labels} from '/page/labels.js';
import {Player} from '/page/player.js';
import {Proposals} from '/page/proposals.js';
import {Review} from '/page/review.js';
import {Saver} from '/page/saver.js';
import {describeReview} from '/page/segments.js';
import {Timeline, clock} from '/page/timeline.js';
import {Training} from '/page/training.js';
import {Videos} from '/page/videos.js';
import {work} from '/page/work.js';

const video = $('video');
const player = new Player(video, frameShown, opened);
const timeline = new Timeline($('timeline'), player);
let state, saver, videos, labels, proposals, clicks, review, keys;
let current = {name: '', clicks: [], labels: []};

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
  draw();
  const where = changed?.name === current.name ? '' : ` in ${changed?.name}`;
  const isReview = ['review', 'reviewed'].includes(event?.kind);
  const told = event && (isReview ? describeReview : describe)(event);
  const next = isReview && review.where() ? `. ${review.where()}` : '';
  if (action.kind === 'undo') {
    say(event ? `Undone: ${told}${next}` : 'Nothing to undo');
  } else if (event && !['spent', 'opened'].includes(action.kind)) {
    say(`Saved: ${told}${where || next}`);
  }
  if (action.kind !== 'spent' && !isReview) await loadProposals();
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

function finish() {
  if (review.finish()) open(videos.neighbour(1, row => !row.reviewed));
}

function switchMode() {
  proposals.leave();
  review.switch();
  useKeys();
  say(review.on ? 'Review: f goes to the next segment' : 'Clicks');
  draw();
  loadProposals();
}

// A training has ended.
function haveSegments() {
  review.loaded = false;
  if (review.on) loadProposals();
  else switchMode();
}

// A number is a class: of an action click, or of the selected segment.
function useKeys() {
  const page = {
    player, state, proposals, review, send, answerOr, click, toggleDone, finish,
    switchMode, turn: direction => open(videos.neighbour(direction)),
    removeNearest: () => clicks.removeNearest(current.clicks),
    order: () => videos.order(), help: () => $('help').showModal(),
    zoom: () => say(
      timeline.zoom() ? 'The line shows a minute' : 'The line shows all'),
  };
  if (review.on) {
    keys.use(ofReview(page), ' class of the segment',
      i => () => review.setClass(i));
  } else {
    keys.use(ofClicks(page), ' action click of a class',
      state.actions && (i => state.classes[i] !== undefined && (() => answerOr(
        'action', () => click(state.classes[i]), state.classes[i]))));
  }
}

const answerOr = (answer, ...others) => clicks.answerOr(
  answer, current.clicks, ...others);

async function open(name) {
  if (name === current.name) return;
  sendSpent(0.5);
  current = {name, clicks: [], labels: []};
  proposals.clear();
  review.clear();
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
  if (!duration) return;
  await review.load(name, () => name === current.name);
  await proposals.load(name, () => name === current.name);
}

function draw() {
  if (!keys) return;
  review.current = current;
  timeline.draw(clicks.draw(current), proposals.moments, proposals.curves,
    review.draw(), review.name, review.mark);
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
  saver = new Saver(
    `clicks:${state.id}:${state.annotator}:`, saved, savedState);
  clicks = new Clicks(player, saver, proposals, send);
  review = new Review(player, state, saver, send, draw);
  keys = new Keys();
  useKeys();
  video.addEventListener('durationchange', opened);
  video.addEventListener('error', playProblem);
  video.addEventListener('ratechange', () => {
    if (!player.slow) $('speed').textContent = `${video.playbackRate}×`;
  });
  setInterval(() => sendSpent(15), 5000);
  addEventListener('pagehide', () => sendSpent(0.5));
  // Another tab may have clicked meanwhile.
  addEventListener('focus', () => { if (!saver.waiting.length) refresh(); });
  if (state.project) new Training(haveSegments);
  savedState();
  $('player').focus();
  const asked = decodeURIComponent(location.hash.slice(1));
  const first = state.videos.find(([, , done]) => !done) ?? state.videos[0];
  say(`${state.annotator}'s clicks in ${state.file}`);
  await open(videos.rows.has(asked) ? asked : first[0]);
}

start().catch(error => say(error.message));
