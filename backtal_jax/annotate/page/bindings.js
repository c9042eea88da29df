// What the keys do: of the player in both modes, of clicks, of the review.
// [key, what it says, what it does, 'once' if it does not repeat]

const ofPlayer = ({player, zoom}) => [
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
  ['z', 'enlarge the line', () => zoom(), 'once'],
];

const ofVideos = ({turn, help}) => [
  ['n', 'next video', () => turn(1), 'once'],
  ['p', 'previous video', () => turn(-1), 'once'],
  ['?', 'help', help, 'once'],
];

export const ofClicks = page => {
  const {answerOr, click, send, proposals, removeNearest} = page;
  return [
    ['b', 'background click', () => answerOr('background', () => click()),
      'once'],
    ...(page.state.proposals ? [
      ['a', 'proposal is an action', () => answerOr('action'), 'once'],
      ['s', 'skip a proposal', () => answerOr('skip'), 'once'],
      ['q', 'next proposal', () => proposals.next(), 'once'],
      ['Escape', 'leave the proposals', () => proposals.leave(), 'once'],
    ] : []),
    ['u', 'undo, across videos', () => send({kind: 'undo'}), 'once'],
    ['x', 'remove nearest click', removeNearest, 'once'],
    ...ofPlayer(page),
    ['d', 'video done', page.toggleDone, 'once'],
    ['g', 'order by worth', page.order, 'once'],
    ['v', 'review segments', page.switchMode, 'once'],
    ...ofVideos(page),
  ];
};

export const ofReview = page => {
  const {review, send} = page;
  return [
    ['f', 'next segment', () => review.step(1)],
    ['b', 'previous segment', () => review.step(-1)],
    ['a', 'accept', () => review.judge('accepted'), 'once'],
    ['x', 'reject', () => review.judge('rejected'), 'once'],
    ['y', 'accept all that are open', () => review.acceptAll(), 'once'],
    ['s', 'start is this frame', () => review.set('start'), 'once'],
    ['e', 'end is this frame', () => review.set('end'), 'once'],
    ['q', 'start a frame earlier', () => review.nudge('start', -1)],
    ['w', 'start a frame later', () => review.nudge('start', 1)],
    ['i', 'end a frame earlier', () => review.nudge('end', -1)],
    ['o', 'end a frame later', () => review.nudge('end', 1)],
    ['c', 'next class', () => review.nextClass(), 'once'],
    ['m', 'mark an edge, add', () => review.addMark(), 'once'],
    ['Escape', 'drop the mark', () => review.dropMark(), 'once'],
    ['-', 'lower scores, too', () => review.lower(-1)],
    ['=', 'higher scores only', () => review.lower(1)],
    ['d', 'video reviewed', page.finish, 'once'],
    ['u', 'undo, across videos', () => send({kind: 'undo'}), 'once'],
    ['g', 'order by worth', page.order, 'once'],
    ['v', 'back to clicks', page.switchMode, 'once'],
    ...ofPlayer(page),
    ...ofVideos(page),
  ];
};
