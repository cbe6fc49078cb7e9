// The boxes that a detector finds, laid over the picture: each a button that explains it.

const byId = (id) => document.getElementById(id);

const CROWD = 40; // boxes; the names of more would cover the picture
const DARKEST = 300; // the sum of a color's levels below which text on it is white

let chosenLeast = null; // the score of the slider; null for the network's own threshold

// Returns the score from which boxes are shown; null for an answer that is none of boxes.
export function least(found) {
  return found.boxes ? (chosenLeast ?? found.boxes.least) : null;
}

// Returns what can be explained of an answer, without boxes below the slider.
export function choices(found) {
  const from = least(found);
  return from === null ? found.choices : found.choices.filter(({ sureness }) => sureness >= from);
}

// Returns how many boxes of each class are shown, such as 'RBC: 12, WBC: 1'.
export function counted(found) {
  const numbers = new Map();
  for (const { label } of shown(found)) numbers.set(label, (numbers.get(label) ?? 0) + 1);
  const named = [...numbers].sort(([one], [other]) => one.localeCompare(other));
  return named.map(([label, number]) => `${label}: ${number}`).join(', ') || 'no objects';
}

export function onLeast(changed) {
  byId('least').addEventListener('input', (event) => {
    chosenLeast = event.target.value / 100;
    changed();
  });
}

export function showBoxes(found, wanted, choose) {
  byId('boxed').hidden = !found.boxes;
  if (!found.boxes) return;
  const { picture, width, height } = found.boxes;
  if (byId('boxed-picture').src !== picture) byId('boxed-picture').src = picture;
  byId('boxes').parentElement.style.setProperty('--ratio', width / height);
  const from = least(found);
  if (chosenLeast === null) byId('least').value = 100 * from;
  byId('least-said').textContent = `${(100 * from).toFixed(chosenLeast === null ? 1 : 0)} %`;
  const explained = wanted ?? found.heat.choice;
  const focused = document.activeElement?.dataset?.box;
  // The surest one is on top, and above all others the one that is explained.
  const made = shown(found).reverse().map((box) => button(box, width, height, explained, choose));
  byId('boxes').replaceChildren(...made);
  byId('boxes').classList.toggle('crowded', made.length > CROWD);
  made.find((one) => one.dataset.box === focused)?.focus({ preventScroll: true });
}

function shown(found) {
  const from = least(found);
  return found.boxes.found.filter(({ sureness }) => sureness >= from);
}

function button({ name, label, sureness, color, box }, width, height, explained, choose) {
  const made = document.createElement('button');
  const text = document.createElement('span');
  const [left, top, right, bottom] = box;
  text.textContent = `${label} ${(100 * sureness).toFixed(0)} %`;
  made.append(text);
  made.type = 'button';
  made.title = made.dataset.box = name;
  made.setAttribute('aria-label', `${name}, ${text.textContent}`);
  made.setAttribute('aria-pressed', String(name === explained));
  const style = {
    '--color': `rgb(${color})`,
    '--ink': color[0] + color[1] + color[2] > DARKEST ? '#000' : '#fff',
    '--left': left / width,
    '--top': top / height,
    '--width': (right - left) / width,
    '--height': (bottom - top) / height,
  };
  for (const [key, value] of Object.entries(style)) made.style.setProperty(key, value);
  if (top < height / 12) made.classList.add('low'); // no room for its name above it
  made.addEventListener('click', () => choose(name));
  return made;
}
