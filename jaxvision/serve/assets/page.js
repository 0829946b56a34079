// What all of the page uses: elements, what is said, questions to the server.

export const $ = (id) => document.getElementById(id);

export function make(tag, given = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "text") element.textContent = value;
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children);
  return element;
}

export function say(text, busy = false) {
  $("status").textContent = text;
  $("status").classList.toggle("busy", busy);
}

export function fail(text) {
  $("error").textContent = text;
}

export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer; is it still running?");
  }
  let found = null;
  try {
    found = await response.json();
  } catch {
    throw new Error("The server's answer cannot be read.");
  }
  if (!response.ok) throw new Error(found.error || "Something went wrong, see the terminal.");
  return found;
}

export const counted = (count, one, several) => `${count.toLocaleString("en")} ${count === 1 ? one : several}`;
export const percent = (value) => `${(100 * value).toFixed(1)} %`;
export const took = (seconds) => (seconds < 1 ? `${Math.round(1000 * seconds)} ms` : `${seconds.toFixed(1)} s`);
export const megabytes = (size) => `${(size / 1e6).toFixed(size < 1e6 ? 2 : 0)} MB`;
