// What somebody does on the page, and the requests that follow from it.

import { Drawing, EXAMPLES } from './drawing.js';
import { Camera } from './camera.js';
import { onLeast } from './boxes.js';
import * as views from './views.js';

const byId = (id) => document.getElementById(id);
const PAUSE = 60; // milliseconds between two requests, at least
const RETRY = 1500; // until a server that did not answer is asked again
const SETTLED = 1200; // without a change, until an answer is read out
const EVERY = 350; // from one look at the camera to the next
const SILENT = 'The server does not answer. Is python -m tools.page still running?';

let about; // what the server says of its network
let way; // 'draw', 'picture' or 'camera'
let file = null; // the picture that was given
let wanted = null; // the class whose heat map is shown; null for the network's answer
let stage = ''; // the one that was chosen for the heat map
let whole = ''; // the stage of which all maps are shown
let version = 0; // of what is looked at: answers to an earlier one are dropped
let asking = null; // the AbortController of the request that is under way
let again = false; // whether something has changed meanwhile
let lost = false; // whether the server has not answered
let last = null; // the answer that is shown
let timer, speaking;

const drawing = new Drawing(byId('paper'), () => {
  byId('undo').disabled = byId('clear').disabled = drawing.empty;
  if (drawing.empty) forget();
  else ask();
});
const camera = new Camera(byId('video'), byId('held'));

// --- asking the server -----------------------------------------------------------------------

// Asks about what is looked at now: at once, or when the request that is under way is answered.
async function ask() {
  clearTimeout(timer);
  if (asking) {
    again = true;
    return;
  }
  again = false;
  document.body.classList.add('asking');
  const mine = version;
  asking = new AbortController();
  let pause = PAUSE;
  try {
    const picture = await picked();
    if (picture && mine === version) {
      const answer = await send(picture, asking.signal);
      await check();
      if (mine === version) show(answer);
    }
  } catch (error) {
    if (mine === version) pause = failed(error);
  }
  if (mine !== version) return; // `forget` has let the next one begin
  asking = null;
  if (again || pause > PAUSE) timer = setTimeout(ask, pause);
  else document.body.classList.remove('asking');
}

// Drops what was shown, and whatever is still to come of it.
function forget() {
  last = null;
  version += 1;
  asking?.abort();
  asking = null;
  again = false;
  document.body.classList.remove('asking');
  clearTimeout(timer);
  clearTimeout(speaking);
  say('');
  views.showNothing();
}

// Returns the picture that is looked at, as a Blob; null if there is none.
function picked() {
  if (way === 'draw') return drawing.empty ? null : drawing.blob();
  return way === 'camera' ? camera.blob() : file;
}

class Sentence extends Error {} // an answer that says why there is no other
class Busy extends Error {}

async function send(picture, signal) {
  if (picture.size > about.limit) {
    const limit = Math.floor(about.limit / 2 ** 20);
    throw new Sentence(`The picture has more than ${limit} MB: scale it down first.`);
  }
  const asked = new URLSearchParams();
  if (wanted !== null) asked.set('choice', wanted);
  if (stage) asked.set('stage', stage);
  if (whole) asked.set('whole', whole);
  const response = await fetch(`/look?${asked}`, { method: 'POST', body: picture, signal });
  const answer = await response.json();
  if (response.ok) return answer;
  if (response.status === 503) throw new Busy();
  throw new Sentence(answer.error);
}

function show(answer) {
  last = answer;
  say('');
  views.showAnswer(answer, wanted, about, choose);
  views.offerStages(answer.stages, byId('stage'));
  views.showSeen(answer, about);
  views.showStages(answer, about, showWhole);
  clearTimeout(speaking);
  speaking = setTimeout(() => speak(`The answer is ${answer.text.replace(/\s{2,}/g, ', ')}`), SETTLED);
}

// Says what went wrong; returns after how many milliseconds to try again.
function failed(error) {
  if (error instanceof Sentence) {
    views.showNothing();
    say(error.message, true);
    return PAUSE;
  }
  if (error instanceof Busy) {
    say('The server is busy; this page asks again.');
    return RETRY;
  }
  lost = true;
  say(SILENT, true);
  return RETRY;
}

// A server that comes back may have another network.
async function check() {
  if (!lost) return;
  lost = false;
  const now = await (await fetch('/about')).json();
  if (JSON.stringify(now) !== JSON.stringify(about)) location.reload();
}

function say(text, wrong = false) {
  const message = byId('message');
  if (message.textContent !== text) message.textContent = text;
  message.classList.toggle('error', wrong);
}

function speak(text) {
  if (byId('spoken').textContent !== text) byId('spoken').textContent = text;
}

// --- what somebody does ----------------------------------------------------------------------

function choose(name) {
  wanted = wanted === name ? null : name;
  ask();
}

function showWhole(name) {
  whole = name;
  ask();
}

async function go(to) {
  way = to;
  forget();
  for (const name of ['draw', 'picture', 'camera']) byId(name).hidden = name !== to;
  document.querySelector(`input[value=${to}]`).checked = true;
  if (to !== 'camera') camera.stop();
  if (to === 'draw') drawing.update();
  if (to === 'picture' && file) ask();
  if (to === 'camera') await startCamera();
}

function give(picture) {
  file = picture;
  if (last?.boxes) wanted = null; // the boxes of another picture have other numbers
  const shown = byId('shown');
  URL.revokeObjectURL(shown.src);
  shown.src = URL.createObjectURL(picture);
  shown.hidden = false;
  byId('drop-hint').hidden = true;
  go('picture');
}

// A picture that the browser does not show may be one that the network reads, or the other way.
byId('shown').addEventListener('error', () => {
  byId('shown').hidden = true;
  byId('drop-hint').hidden = false;
});

async function startCamera() {
  byId('shoot').hidden = true;
  say('Waiting for the camera.');
  try {
    await camera.start();
  } catch (error) {
    if (way === 'camera') say(error.message, true);
    return;
  }
  if (way !== 'camera') return camera.stop();
  say('');
  byId('shoot').hidden = false;
  byId('shoot').textContent = 'Hold this picture';
  watch();
}

function watch() {
  if (way !== 'camera' || !camera.running) return;
  ask();
  setTimeout(watch, EVERY);
}

byId('shoot').addEventListener('click', async () => {
  if (!camera.running) return startCamera();
  camera.hold();
  byId('shoot').textContent = 'Go on';
  ask();
});

byId('ways').addEventListener('change', (event) => go(event.target.value));
byId('undo').addEventListener('click', () => drawing.undo());
byId('clear').addEventListener('click', () => drawing.replace([]));
byId('pen').addEventListener('input', (event) => (drawing.width = event.target.value / 100));
byId('stage').addEventListener('change', (event) => {
  stage = event.target.value;
  ask();
});
onLeast(() => last && views.showAnswer(last, wanted, about, choose));
byId('file').addEventListener('change', (event) => {
  if (event.target.files.length) give(event.target.files[0]);
  event.target.value = ''; // so that the same file can be chosen again
});

let samples = 0;
byId('sample').addEventListener('click', () => {
  const known = [...EXAMPLES.keys()].filter((name) => about.classes.includes(name));
  drawing.replace(EXAMPLES.get(known[samples++ % known.length]));
});

byId('example').addEventListener('click', async () => {
  try {
    give(await (await fetch('/example')).blob());
  } catch (error) {
    failed(error);
  }
});

document.addEventListener('keydown', (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === 'z' && way === 'draw') {
    event.preventDefault();
    drawing.undo();
  }
});

document.addEventListener('paste', (event) => {
  const [picture] = event.clipboardData.files;
  if (picture) give(picture);
  else say('There is no picture to be pasted: copy one first.', true);
});

for (const name of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle('dropping', name === 'dragover');
  });
}
document.addEventListener('drop', (event) => {
  const [picture] = event.dataTransfer.files;
  if (picture) give(picture);
  else say('Drop the file of a picture.', true);
});

// --- the start -------------------------------------------------------------------------------

async function start() {
  try {
    about = await (await fetch('/about')).json();
  } catch {
    say(SILENT, true);
    setTimeout(start, RETRY);
    return;
  }
  views.showNetwork(about);
  views.showBars(about.classes, choose);
  const digits = about.classes.length && about.classes.every((name) => /^[0-9]$/.test(name));
  drawing.hint = digits ? 'Draw a digit' : about.handwriting ? 'Draw a character' : 'Draw something';
  byId('invitation').textContent = about.handwriting ? drawing.hint : 'Give it a picture';
  byId('sample').hidden = !about.classes.some((name) => EXAMPLES.has(name));
  byId('example').hidden = about.handwriting;
  if (!about.handwriting) byId('ways').append(byId('ways').querySelector('label')); // drawing last
  go(about.handwriting ? 'draw' : 'picture');
}

byId('undo').disabled = byId('clear').disabled = true;
start();
