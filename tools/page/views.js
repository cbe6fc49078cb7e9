// What the server has said, put on the page.

import * as boxes from './boxes.js';

const byId = (id) => document.getElementById(id);
const percent = (share) => (share === null ? 'no number' : `${(100 * share).toFixed(1)} %`);

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// --- the network -----------------------------------------------------------------------------

export function showNetwork(about) {
  document.title = `${about.title} · see inside`;
  byId('title').textContent = about.title;
  byId('facts').replaceChildren(
    ...Object.entries(about.facts).map(([name, value]) =>
      element('div', {}, element('dt', { textContent: name }), element('dd', { textContent: value })),
    ),
  );
}

// --- the answer ------------------------------------------------------------------------------

let rows = new Map(); // class -> its parts, in the order in which they are shown

export function showBars(names, choose) {
  rows = new Map(names.map((name) => [name, bar(name, choose)]));
  byId('bars').replaceChildren(...[...rows.values()].map((row) => row.item));
  byId('bars').classList.toggle('long', names.some((name) => name.length > 4));
}

function bar(name, choose) {
  const fill = element('span', { className: 'fill' });
  const share = element('span', { className: 'share' });
  const button = element(
    'button',
    { type: 'button', disabled: true, title: name },
    element('span', { className: 'name', textContent: name }),
    element('span', { className: 'track' }, fill),
    share,
  );
  button.setAttribute('aria-pressed', 'false');
  button.addEventListener('click', () => choose(name));
  return { item: element('li', {}, button), button, fill, share };
}

// The answer without a picture: bars of nothing.
export function showNothing() {
  byId('answer').textContent = '';
  for (const { item, button, fill, share } of rows.values()) {
    fill.style.setProperty('--share', '0%');
    share.textContent = '';
    button.disabled = true;
    item.className = '';
    button.setAttribute('aria-pressed', 'false');
  }
  for (const id of ['boxed', 'given', 'heat', 'heat-scale', 'bars-hint', 'stage-choice', 'heat-hint']) byId(id).hidden = true;
  byId('given-caption').textContent = 'Its input';
  byId('heat-caption').textContent = 'What speaks for the answer';
  byId('stages').replaceChildren();
  byId('inside-hint').hidden = false;
}

export function showAnswer(found, wanted, about, choose) {
  boxes.showBoxes(found, wanted, choose);
  const choices = boxes.choices(found);
  const shares = new Map(choices.map(({ name, sureness }) => [name, sureness]));
  byId('bars').classList.toggle('many', Boolean(found.boxes));
  byId('answer').classList.toggle('counts', Boolean(found.boxes));
  if (found.boxes || [...shares.keys()].some((name) => !about.classes.includes(name))) {
    const names = [...shares.keys()]; // of many classes, or of things that are found
    if (wanted !== null && !shares.has(wanted)) names.push(wanted);
    keepFocus(() => showBars(names, choose));
  }
  const [first] = choices;
  if (found.boxes || !first) byId('answer').textContent = found.boxes ? boxes.counted(found) : found.text;
  if (!first) {
    byId('bars-hint').hidden = true;
    return;
  }
  const sure = element('small', { textContent: percent(first.sureness) });
  if (!found.boxes) byId('answer').replaceChildren(first.name, sure);
  for (const [name, { item, button, fill, share }] of rows) {
    const value = shares.get(name);
    fill.style.setProperty('--share', `${100 * (value ?? 0)}%`);
    share.textContent = value === undefined ? 'less' : percent(value);
    item.className = name === first.name ? 'first' : '';
    button.disabled = false;
    button.setAttribute('aria-pressed', String(name === wanted));
  }
  byId('bars-hint').hidden = false;
  byId('bars-hint').textContent =
    wanted === null
      ? `Choose a ${found.boxes ? 'box' : 'class'} to see what speaks for it.`
      : 'Choose it again to see what speaks for the answer.';
}

// Builds the bars anew; the class that had the focus keeps it.
function keepFocus(build) {
  const focused = [...rows].find(([, row]) => row.button === document.activeElement)?.[0];
  build();
  const row = rows.get(focused);
  if (!row) return;
  row.button.disabled = false;
  row.button.focus({ preventScroll: true });
}

// --- input and heat map ----------------------------------------------------------------------

export function showSeen(found, about) {
  byId('given').src = found.drawn || found.input;
  byId('given').hidden = false;
  const shown = found.drawn ? 'Its answer, drawn over its input' : 'Its input';
  byId('given-caption').textContent = `${shown}, ${about.facts.Input}`;
  const { choice, stage, picture, strongest, problem } = found.heat;
  byId('heat').hidden = !picture;
  byId('stage-choice').hidden = !picture;
  byId('heat-scale').hidden = !picture;
  byId('heat-most').textContent = strongest ? `most (${strongest.toPrecision(2)})` : 'most';
  const nothing = picture && !strongest ? `Nothing in this stage speaks for ${choice}.` : '';
  const hint = problem ?? nothing;
  byId('heat-hint').hidden = !hint;
  if (picture) byId('heat').src = picture;
  else byId('heat').removeAttribute('src');
  byId('heat-hint').textContent = hint;
  byId('heat-caption').textContent = picture ? `What speaks for ${choice}` : 'No heat map';
  if (stage) byId('stage').value = stage;
  byId('heat').alt = picture ? `Heat map over the picture: what speaks for ${choice}` : '';
}

export function offerStages(stages, select) {
  const names = stages.filter((stage) => stage.spatial).map((stage) => stage.name);
  if ([...select.options].map((option) => option.value).join() === names.join()) return;
  select.replaceChildren(...names.map((name) => new Option(name, name)));
}

// --- the stages ------------------------------------------------------------------------------

const SIDE = 96; // pixels of a feature map on the page, at most
const NARROW = 500; // pixels of a stage; in fewer its maps are smaller
const SMALL_SIDE = 84;
const UNIT = 14; // of a unit of a dense layer
const GAP = 3;
let shownStages = new Map(); // name -> its parts

export function showStages(found, about, showWhole) {
  byId('inside-hint').hidden = true;
  if (!byId('stages').children.length) shownStages = new Map();
  for (const stage of found.stages) {
    if (!shownStages.has(stage.name)) {
      const parts = card(stage, about.stages[stage.name]);
      parts.more.addEventListener('click', () => showWhole(stage.name));
      shownStages.set(stage.name, parts);
      byId('stages').append(parts.article);
    }
    fill(shownStages.get(stage.name), stage);
  }
}

function card(stage, seen) {
  const canvas = element('canvas');
  canvas.setAttribute('role', 'img');
  const low = element('span');
  const high = element('span');
  const count = element('span');
  const more = element('button', { type: 'button', hidden: true });
  const sees = seen ? ` · each value sees ${seen}` : '';
  const what = element('p', { className: 'hint', textContent: stage.size + sees });
  const article = element(
    'article',
    { className: 'stage' },
    element('header', {}, element('h3', { textContent: stage.name }), what),
    canvas,
    element('footer', {}, low, element('span', { className: 'scale' }), high, count, more),
  );
  const parts = { article, canvas, low, high, count, more, strip: new Image(), stage: null };
  parts.strip.addEventListener('load', () => paint(parts));
  new ResizeObserver(() => paint(parts)).observe(article);
  return parts;
}

function fill(parts, stage) {
  const what = stage.spatial ? 'maps' : 'units';
  parts.next = stage;
  parts.strip.src = stage.strip;
  parts.low.textContent = stage.low.toPrecision(2).replace(/^0\.0$/, '0');
  parts.high.textContent = stage.high.toPrecision(2);
  parts.count.textContent =
    stage.shown < stage.count ? `${stage.shown} of ${stage.count} ${what}` : `${stage.count} ${what}`;
  parts.more.hidden = stage.shown === stage.count;
  parts.more.textContent = `Show all ${stage.count}`;
  parts.canvas.setAttribute('aria-label', `${stage.name}: ${parts.count.textContent}, ${stage.size}`);
}

// Lays the maps of a stage side by side, as many as fit, each pixel a whole number of pixels.
function paint({ article, canvas, strip, next }) {
  if (!next || !strip.naturalWidth || strip.naturalHeight !== next.shown * next.height) return;
  const { width, height, shown, spatial } = next;
  const ratio = devicePixelRatio;
  const side = !spatial ? UNIT : article.clientWidth < NARROW ? SMALL_SIDE : SIDE;
  const factor = Math.max(1, Math.floor((side * ratio) / Math.max(width, height)));
  const [w, h, gap] = [width * factor, height * factor, Math.round(GAP * ratio)];
  const room = Math.floor(article.clientWidth * ratio);
  const most = Math.max(1, Math.floor((room + gap) / (w + gap)));
  const rows = Math.ceil(shown / most);
  const columns = Math.ceil(shown / rows); // so that the last row is nearly full
  canvas.width = columns * (w + gap) - gap;
  canvas.height = rows * (h + gap) - gap;
  canvas.style.width = `${canvas.width / ratio}px`;
  const context = canvas.getContext('2d');
  context.imageSmoothingEnabled = false;
  for (let i = 0; i < shown; i++) {
    const x = (i % columns) * (w + gap);
    const y = Math.floor(i / columns) * (h + gap);
    context.drawImage(strip, 0, i * height, width, height, x, y, w, h);
  }
}
