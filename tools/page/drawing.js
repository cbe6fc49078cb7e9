// The paper: strokes of a mouse, a finger or a pen, kept as points so that they can be undone and
// drawn at any size. Points and widths are in parts of the paper's side.

const SENT = 280; // pixels of the side of the picture that is sent

export class Drawing {
  // changed() is called whenever the drawing is another one.
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.strokes = [];
    this.width = 0.07;
    this.hint = '';
    this.pointer = null; // of the stroke that is being drawn
    canvas.addEventListener('pointerdown', (event) => this.begin(event));
    canvas.addEventListener('pointermove', (event) => this.move(event));
    for (const name of ['pointerup', 'pointercancel', 'lostpointercapture']) {
      canvas.addEventListener(name, (event) => this.end(event));
    }
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  get empty() {
    return this.strokes.length === 0;
  }

  begin(event) {
    // One stroke at a time: a palm or a second finger draws nothing.
    if (this.pointer !== null || event.button !== 0) return;
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    this.pointer = event.pointerId;
    this.strokes.push({ width: this.width, points: [this.at(event)] });
    this.update();
  }

  move(event) {
    if (event.pointerId !== this.pointer) return;
    const moves = event.getCoalescedEvents?.() ?? [];
    const points = (moves.length ? moves : [event]).map((move) => this.at(move));
    this.strokes.at(-1)?.points.push(...points);
    this.update();
  }

  end(event) {
    if (event.pointerId !== this.pointer) return;
    this.pointer = null;
    this.update();
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  undo() {
    this.strokes.pop();
    this.pointer = null;
    this.update();
  }

  replace(strokes) {
    this.strokes = strokes.map((points) => ({ width: this.width, points }));
    this.pointer = null;
    this.update();
  }

  update() {
    this.paint();
    this.changed();
  }

  paint() {
    const side = Math.round(this.canvas.clientWidth * devicePixelRatio);
    if (!side) return; // it is not shown
    if (this.canvas.width !== side) this.canvas.width = this.canvas.height = side;
    this.render(this.canvas.getContext('2d'), side);
    if (this.empty) this.invite(this.canvas.getContext('2d'), side);
  }

  render(context, side) {
    context.fillStyle = '#fff';
    context.fillRect(0, 0, side, side);
    context.strokeStyle = context.fillStyle = '#141414';
    context.lineCap = context.lineJoin = 'round';
    for (const { width, points } of this.strokes) {
      context.lineWidth = width * side;
      context.beginPath();
      points.forEach(([x, y]) => context.lineTo(x * side, y * side));
      if (points.length === 1) context.lineTo(points[0][0] * side, points[0][1] * side + 0.01);
      context.stroke();
    }
  }

  invite(context, side) {
    context.fillStyle = '#6b675f';
    context.textAlign = 'center';
    context.font = `${Math.round(side * 0.06)}px system-ui, sans-serif`;
    context.fillText(this.hint, side / 2, side / 2);
  }

  // The drawing as a PNG.
  blob() {
    const copy = Object.assign(document.createElement('canvas'), { width: SENT, height: SENT });
    this.render(copy.getContext('2d'), SENT);
    return new Promise((resolve) => copy.toBlob(resolve, 'image/png'));
  }
}

// Points of a part of an ellipse; angles in degrees, 0 to the right and 90 downward.
function arc(x, y, rx, ry, from, to) {
  const count = Math.ceil(Math.abs(to - from) / 10);
  return Array.from({ length: count + 1 }, (_, i) => {
    const angle = ((from + ((to - from) * i) / count) * Math.PI) / 180;
    return [x + rx * Math.cos(angle), y + ry * Math.sin(angle)];
  });
}

// Strokes of the ten digits, for whoever cannot draw with a pointer.
export const EXAMPLES = new Map([
  ['7', [[[0.3, 0.22], [0.7, 0.22], [0.44, 0.8]]]],
  ['3', [[...arc(0.48, 0.35, 0.17, 0.15, -150, 85), ...arc(0.48, 0.65, 0.2, 0.16, -85, 150)]]],
  ['5', [[[0.66, 0.2], [0.38, 0.2], [0.35, 0.48], ...arc(0.48, 0.62, 0.19, 0.18, -125, 150)]]],
  ['2', [[...arc(0.5, 0.36, 0.18, 0.16, -170, 40), [0.31, 0.8], [0.71, 0.8]]]],
  ['0', [arc(0.5, 0.5, 0.2, 0.3, -90, 275)]],
  ['9', [[...arc(0.5, 0.37, 0.17, 0.17, 0, -360), [0.66, 0.55], [0.58, 0.82]]]],
  ['4', [[[0.55, 0.2], [0.3, 0.6], [0.72, 0.6]], [[0.61, 0.4], [0.61, 0.82]]]],
  ['8', [[
    [0.66, 0.27], [0.52, 0.2], [0.38, 0.27], [0.41, 0.4], [0.52, 0.49], [0.62, 0.6], [0.63, 0.72],
    [0.5, 0.8], [0.37, 0.72], [0.4, 0.6], [0.52, 0.49], [0.63, 0.39], [0.66, 0.27],
  ]]],
  ['6', [[[0.62, 0.2], [0.48, 0.28], [0.38, 0.42], ...arc(0.5, 0.64, 0.17, 0.17, 190, 550)]]],
  ['1', [[[0.38, 0.34], [0.53, 0.2], [0.53, 0.82]]]],
]);
