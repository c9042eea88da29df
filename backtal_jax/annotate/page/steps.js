// A frame on, a frame back: to the very next picture, however long each stands.

// Seconds between two moments that no two pictures have between them.
const NEAR = 0.001;
// Of two pictures without a third between them, in frames.
const NEXT = 1.25;
// The gap that the first look for the next picture may leave, in seconds.
const WIDEST = 0.1;
// Milliseconds of playing that show whether a picture is a still.
const MOMENT = 200;

export async function stepOnce(player, direction) {
  if (!player.ready) return;
  const {sought} = player;
  // When the picture begins that is shown at a time; NaN, which compares as
  // nothing does, once somebody else has sought.
  const look = async time => {
    if (sought === player.sought) await player.go(time);
    player.look();
    return sought === player.sought ? player.picture : NaN;
  };
  player.look();
  const from = player.picture;
  const next = await (direction > 0 ? on : back)(player, look, from);
  if (!(Math.abs(next - from) > 0)) return;
  player.frame = Math.min(player.frame, Math.abs(next - from));
  // Wherever in the picture we are: what is meant is the picture.
  player.since = player.clock;
  player.show();
}

async function back(player, look, from) {
  if (from <= 0) return from;
  const found = await look(from - NEAR);
  if (found >= from) return byPlaying(player, look, from, -1);
  if (from - found > NEXT * player.frame) {
    const seen = await player.playUntil(picture => picture > found, 1, MOMENT);
    if (seen.at(-1) < from) return byPlaying(player, look, from, -1);
    return look(from - NEAR);
  }
  return found;
}

async function on(player, look, from) {
  // Further and further, until it is another.
  let [low, high, at] = [from, from, from];
  for (let offset = 1.5 * Math.min(player.frame, WIDEST);
    high === from && at < player.end; offset *= 2) {
    low = at;
    at = Math.min(from + offset, player.end);
    high = await look(at);
  }
  if (high === from && player.clock >= at - NEAR) return from;  // the last
  // There may be others before it.
  let plain = high > from;
  for (let close = true; plain && high - from > NEXT * player.frame
    && high - low > 2 * NEAR; close = !close) {
    const middle = close ? high - NEAR : (low + high) / 2;
    const found = await look(middle);
    plain = found >= from && found <= middle;
    if (found === from) low = middle;
    else high = found;
    plain &&= low < high;
  }
  if (!plain) return byPlaying(player, look, from, 1);
  return player.picture === high ? high : look(high + NEAR);
}

// Some browsers show another picture than was sought: a later one where they
// cannot begin to decode, an earlier one where that is told to stand longer
// than it does. In playing all come: once to learn when the one begins that is
// wanted, and once to stop there; slower, if it went by.
async function byPlaying(player, look, from, direction) {
  const isPast = picture => direction > 0 ? picture > from : picture >= from;
  let at = from;
  let found = await look(at);
  for (; isPast(found) && at > 0; found = await look(at)) {
    at = Math.max(0, at - Math.min(player.frame, WIDEST));
  }
  if (Number.isNaN(found)) return found;
  const seen = [found, ...await player.playUntil(isPast, 0.5)];
  const goal = (direction > 0
    ? seen.find(isPast) : seen.findLast(picture => picture < from)) ?? from;
  for (const rate of [0.5, 0.25, 0.0625]) {
    if (!(await look(at) < goal)) break;
    await player.playUntil(picture => picture >= goal - NEAR, rate);
    player.look();
    if (player.picture === goal) break;
  }
  return player.picture;
}
