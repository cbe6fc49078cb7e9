// The camera: its picture, live or held, and what to do where there is none.

const SIDE = 640; // pixels that are asked of it
const PROBLEMS = {
  NotAllowedError: 'The camera was not allowed: allow it for this page in the browser, or choose a picture.',
  NotFoundError: 'No camera was found: connect one, or choose a picture.',
  NotReadableError: 'The camera is in use by another program: close it, or choose a picture.',
};

export class Camera {
  // video shows what it sees, and canvas the picture that is held.
  constructor(video, canvas) {
    this.video = video;
    this.canvas = canvas;
    this.stream = null;
  }

  get running() {
    return this.stream !== null;
  }

  // Starts the camera; an error says why it cannot be used.
  async start() {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new Error(
        'Browsers give the camera only to pages of this machine (http://localhost) or over https: choose a picture.',
      );
    }
    this.stop();
    const size = { ideal: SIDE };
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: 'environment', width: size, height: size },
      });
      this.video.srcObject = this.stream;
      await this.video.play();
    } catch (error) {
      this.stop();
      throw new Error(PROBLEMS[error.name] ?? `The camera cannot be used (${error.name}): choose a picture.`);
    }
  }

  // Keeps what it sees now, and switches it off.
  hold() {
    this.copy();
    this.stop();
    this.video.hidden = true;
    this.canvas.hidden = false;
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
    this.video.hidden = false;
    this.canvas.hidden = true;
  }

  copy() {
    this.canvas.width = this.video.videoWidth;
    this.canvas.height = this.video.videoHeight;
    this.canvas.getContext('2d').drawImage(this.video, 0, 0);
  }

  // What it sees, or what is held, as a JPEG; null before its first picture.
  blob() {
    if (this.running && !this.video.videoWidth) return null;
    if (this.running) this.copy();
    else if (this.canvas.hidden) return null;
    return new Promise((resolve) => this.canvas.toBlob(resolve, 'image/jpeg', 0.92));
  }
}
