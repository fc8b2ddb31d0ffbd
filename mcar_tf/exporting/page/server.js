// A picture file in, the server's answer out.

import { NotAPicture } from "./picture.js";

export const promise = "Pictures are sent to this server, which keeps none of them.";

/** What can be asked: the server needs no loading. */
export async function load() {
  return { runtime: "the server answers", look };
}

/**
 * @param {Blob} blob
 * @returns {Promise<object>} probs, global_probs, boxes, box_classes, times
 */
async function look(blob) {
  const form = new FormData();
  form.append("images", blob, blob.name ?? "picture");
  const started = performance.now();
  const response = await fetch("look", { method: "POST", body: form });
  const content = await response.json().catch(() => ({}));
  if (!response.ok) {
    if (response.status === 400) throw new NotAPicture("not a picture, or a damaged one");
    throw new Error(content.error ?? `the server said ${response.status}`);
  }
  const { name, error, ...answer } = content.pictures[0];
  if (error) throw new NotAPicture(error);
  return { ...answer, times: { both: performance.now() - started } };
}
