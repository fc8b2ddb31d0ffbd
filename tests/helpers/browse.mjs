// A script for node: opens a page in Chromium, shows it files, prints as JSON what it answers and whom it asked.
//
//     node browse.mjs NODE_MODULES CHROMIUM URL FILE ...
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { basename, join } from "node:path";

const [modules, chromium, url, ...files] = process.argv.slice(2);
const require = createRequire(join(modules, "here.js"));
const browser = await require("playwright-core").chromium.launch({ executablePath: chromium, args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 390, height: 844 } });
const asked = [], errors = [];
page.on("request", (request) => asked.push(request.url()));
page.on("pageerror", (error) => errors.push(error.message));
await page.goto(url);
await page.evaluate(() => window.mcar.ready);

// By `window.mcar.look`, which is for scripts.
const looked = [];
for (const file of files) {
  const content = readFileSync(file).toString("base64");
  looked.push(
    await page.evaluate(async (content) => {
      const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
      return window.mcar.look(new Blob([bytes])).catch((error) => ({ error: error.message }));
    }, content),
  );
}

// By hand: files are dropped, and cards read.
const transfer = await page.evaluateHandle(
  (files) => {
    const transfer = new DataTransfer();
    for (const [name, content] of files) {
      transfer.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name));
    }
    return transfer;
  },
  files.map((file) => [basename(file), readFileSync(file).toString("base64")]),
);
await page.dispatchEvent("#drop", "drop", { dataTransfer: transfer });
await page.waitForFunction((count) => document.querySelectorAll(".card").length === count, files.length);
await page.waitForFunction(() => !document.querySelector(".busy"), null, { timeout: 120000 });
const cards = await page.$$eval(".card", (cards) =>
  cards.map((card) => ({
    name: card.querySelector("h3").textContent,
    labels: [...card.querySelectorAll(".label .name")].map((label) => label.textContent),
    boxes: [...card.querySelectorAll(".box span")].map((title) => title.textContent),
    note: card.querySelector(".note").textContent,
    times: card.querySelector(".times").textContent,
  })),
);
const said = await page.textContent("#said");
const state = await page.textContent("#state-text");
const wider = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
// By keyboard alone: the way from the first card's button on.
await page.focus(".card .remove");
await page.keyboard.press("Enter");
const left = await page.$$eval(".card", (cards) => cards.length);
const focused = await page.evaluate(() => document.activeElement.getAttribute("aria-label"));
console.log(JSON.stringify({ looked, cards, said, state, wider, left, focused, asked, errors }));
await browser.close();
