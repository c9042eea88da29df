// What the page's parts share: elements, messages, what the server tells.

export const $ = id => document.getElementById(id);

// Screen readers hear it, too.
export const say = text => { $('status').textContent = text; };

export function make(tag, text, properties = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...[text].flat());
  return element;
}

// The JSON of a response; what else comes is a problem, in words.
export async function parse(response) {
  const isJson = response.headers.get('content-type')?.includes('json');
  return isJson ? await response.json() : {problem: await response.text()};
}

export async function get(url) {
  const response = await fetch(url);
  const answer = await parse(response);
  if (!response.ok) throw new Error(answer.problem);
  return answer;
}
