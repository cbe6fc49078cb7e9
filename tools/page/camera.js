// The camera: its picture, live or held, and what to do where there is none.

const SIDE = 640; // pixels that are asked of it
const PROBLEMS = {
  NotAllowedError: 'The camera was not allowed: allow it for this page in the browser, or choose a picture.',
  NotFoundError: 'No camera was found: connect one, or choose a picture.',
  NotReadableError: 'The camera is in use by another program: close it, or choose a picture.',
};

export class Camera {
  constructor(video) {
    this.video = video;
    this.stream = null;
  }

  get running() {
    return this.stream !== null && !this.video.paused;
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

  hold() {
    this.video.pause();
    this.stream?.getTracks().forEach((track) => track.stop());
  }

  stop() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.video.srcObject = null;
  }

  // What it shows as a JPEG; null before its first picture.
  blob() {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!width) return null;
    const copy = Object.assign(document.createElement('canvas'), { width, height });
    copy.getContext('2d').drawImage(this.video, 0, 0);
    return new Promise((resolve) => copy.toBlob(resolve, 'image/jpeg', 0.92));
  }
}
