// A script for node: opens pages in Chromium by each way of computing, and the camera; prints as JSON what they say.
//
//     node browse_runtimes.mjs NODE_MODULES CHROMIUM VIDEO PICTURE WAY=URL ...
//
// WAY holds `gpu`: a GPU that the processor imitates passes for a real one; `camera`: it shows VIDEO.
// The CDN's files are those of NODE_MODULES.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [modules, chromium, video, picture, ...ways] = process.argv.slice(2);
const require = createRequire(join(modules, "here.js"));
const args = [
  ...["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", `--use-file-for-fake-video-capture=${video}`],
  ...["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan,WebGPU", "--use-vulkan=swiftshader"],
];
const browser = await require("playwright-core").chromium.launch({ executablePath: chromium, args });
const content = readFileSync(picture).toString("base64");
const answers = {};
for (const [way, url] of ways.map((word) => [word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1)])) {
  const page = await browser.newPage({ viewport: { width: 390, height: 844 } });
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  await page.route("https://cdn.jsdelivr.net/**", (route) => {
    const [, name, version, file] = route.request().url().match(/npm\/(@litertjs\/[\w-]+)@([\d.]+)\/(.*)$/);
    const folder = join(modules, name);
    if (JSON.parse(readFileSync(join(folder, "package.json"))).version !== version) return route.abort();
    return route.fulfill({
      body: readFileSync(join(folder, file)),
      contentType: file.endsWith(".wasm") ? "application/wasm" : "text/javascript",
      headers: { "access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin" },
    });
  });
  if (way.includes("gpu")) {
    await page.addInitScript(() => Object.defineProperty(GPUAdapterInfo.prototype, "isFallbackAdapter", { value: false }));
  }
  await page.goto(url);
  await page.evaluate(() => window.mcar.ready);
  const look = () =>
    page.evaluate((content) => {
      const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
      return window.mcar.look(new Blob([bytes]));
    }, content);
  const before = await look(); // where a GPU is being tried, amid that
  await page.waitForFunction(() => !document.querySelector("#state-text").textContent.includes("trying"), null, { timeout: 240000 });
  const answer = { state: await page.textContent("#state-text"), before, after: await look(), asked };
  if (way.includes("camera")) {
    await page.click("#open-camera");
    await page.waitForFunction(() => document.querySelector("#camera-text").textContent, null, { timeout: 60000 });
    answer.seen = await page.textContent("#camera-text");
    await page.click("#take");
    await page.waitForFunction(() => document.querySelector(".card .all:not([hidden])"), null, { timeout: 60000 });
    answer.card = {
      name: await page.textContent(".card h3"),
      labels: await page.$$eval(".card .label .name", (names) => names.map((name) => name.textContent)),
      size: await page.$eval(".card img", (image) => [image.naturalWidth, image.naturalHeight]),
    };
    await page.click("#close-camera");
    answer.live = await page.$eval("#video", (video) => video.srcObject.getTracks().some((track) => track.readyState === "live"));
    answer.focused = await page.evaluate(() => document.activeElement.id);
  }
  answers[way] = answer;
  await page.close();
}
console.log(JSON.stringify(answers));
await browser.close();
