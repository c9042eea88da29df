// Seconds of work since they were last taken: while the video plays or keys
// are pressed; a pause over a minute is left out as a whole.

const LONGEST_PAUSE = 60;

export const work = {
  last: performance.now(),
  spent: 0,

  go() {
    const now = performance.now();
    const pause = (now - this.last) / 1000;
    if (pause <= LONGEST_PAUSE) this.spent += pause;
    this.last = now;
  },

  take() {
    this.go();
    const spent = Math.round(this.spent * 1000) / 1000;
    this.spent = 0;
    return spent;
  },
};
