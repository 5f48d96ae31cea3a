/** The camera: opened, asked for frames, closed; and in words what hinders it. */

/** The camera cannot be had; the message says why and what helps. */
export class CameraError extends Error {}

const REASONS = {
  NotAllowedError:
    "The browser does not let this page use the camera. Allow it in the address bar or in the browser's settings, then try again. A photo works without.",
  NotFoundError: "No camera was found. Plug one in and try again, or choose a photo instead.",
  OverconstrainedError: "That camera is gone. Try again to use another one.",
  NotReadableError: "The camera is busy: another program is using it. Close that one, then try again.",
};

/** An open camera, shown in a video element. */
export class Camera {
  #stream;
  #video;
  #canvas = document.createElement("canvas");

  /**
   * Open a camera and show it.
   *
   * @param {HTMLVideoElement} video
   * @param {?string} deviceId Which; null takes the one the browser offers.
   * @param {function()} onEnd Called when it is unplugged or taken away.
   * @param {function(): boolean} isWanted Whether it still is, once the browser gives it: another may
   *   be shown by then.
   * @throws {CameraError}
   */
  static async open(video, deviceId, onEnd, isWanted) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new CameraError(
        "Browsers lend the camera only to pages that came over HTTPS or from this very machine. Choose a photo instead, or put the service behind HTTPS.",
      );
    }
    const wanted = { width: { ideal: 1280 }, height: { ideal: 720 } };
    if (deviceId !== null) wanted.deviceId = { exact: deviceId };
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false });
    } catch (error) {
      throw new CameraError(REASONS[error.name] ?? `The camera cannot be opened: ${error.message}`);
    }
    if (!isWanted()) {
      for (const track of stream.getTracks()) track.stop();
      throw new CameraError("The camera is not wanted any more.");
    }
    const camera = new Camera();
    camera.#stream = stream;
    camera.#video = video;
    stream.getVideoTracks()[0].addEventListener("ended", onEnd);
    video.srcObject = stream;
    try {
      await video.play();
    } catch (error) {
      camera.close();
      throw new CameraError(`The camera's picture cannot be shown: ${error.message}`);
    }
    return camera;
  }

  /** Which camera it is. */
  get deviceId() {
    return this.#stream.getVideoTracks()[0].getSettings().deviceId ?? "";
  }

  /**
   * What the camera sees now, as a JPEG and as the canvas it was taken from.
   *
   * @param {number} longestSidePixels It is shrunk to this, never enlarged.
   * @returns {Promise<{blob: Blob, canvas: HTMLCanvasElement}>} The canvas is overwritten by the
   *   next frame.
   */
  async takeFrame(longestSidePixels) {
    const { videoWidth, videoHeight } = this.#video;
    const scale = Math.min(1, longestSidePixels / Math.max(videoWidth, videoHeight));
    this.#canvas.width = Math.round(videoWidth * scale);
    this.#canvas.height = Math.round(videoHeight * scale);
    this.#canvas.getContext("2d")
      .drawImage(this.#video, 0, 0, this.#canvas.width, this.#canvas.height);
    const blob = await new Promise((resolve) => {
      this.#canvas.toBlob(resolve, "image/jpeg", 0.9);
    });
    if (blob === null) throw new CameraError("The camera gives no picture. Try again.");
    return { blob, canvas: this.#canvas };
  }

  /** Let go of the camera. */
  close() {
    for (const track of this.#stream.getTracks()) track.stop();
    if (this.#video.srcObject === this.#stream) this.#video.srcObject = null;
  }
}

/** The cameras there are: `deviceId` and `label`. Labels are known once one was opened. */
export async function listCameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices
    .filter((device) => device.kind === "videoinput")
    .map((device, index) => ({
      deviceId: device.deviceId,
      label: device.label || `Camera ${index + 1}`,
    }));
}
