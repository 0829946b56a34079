// The camera: one picture, or one after another as answers come.

import { $, fail, make } from "/page.js";

let stream = null;

/** What the camera sees now, as a JPEG; null before it sees anything. */
async function frame() {
  const video = $("video");
  if (!video.videoWidth) return null;
  const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
}

export function beginCamera(predict) {
  $("camera").addEventListener("click", async () => {
    fail("");
    if (!navigator.mediaDevices || !isSecureContext) {
      fail("Browsers lend the camera to pages of this machine alone: open this one at http://localhost.");
      return;
    }
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      const none = ["NotFoundError", "OverconstrainedError"].includes(error.name);
      fail(none ? "There is no camera." : "The camera was not lent to this page; the browser's settings say why.");
      return;
    }
    $("video").srcObject = stream;
    $("live").hidden = false;
    $("drop").hidden = true;
    $("still").focus();
  });

  $("still").addEventListener("click", async () => {
    const blob = await frame();
    if (blob) predict(blob);
  });
  $("continuous").addEventListener("change", async () => {
    while ($("continuous").checked && stream) {
      const blob = await frame();
      if (blob) await predict(blob, true);
      await new Promise((done) => requestAnimationFrame(done)); // not while the page is hidden
    }
  });
  $("stop").addEventListener("click", () => {
    $("continuous").checked = false;
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    $("live").hidden = true;
    $("drop").hidden = false;
    $("camera").focus();
  });
}
