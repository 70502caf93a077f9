// What the tests and the screenshots of the page share: the server, the browser, a hand that draws.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

export const { OWNER, READER, CLUSTER } = process.env;

export const cluster = (command) => execFileSync("tests/cluster.sh", [command, CLUSTER]);

/// Starts the page's server; "gallery" is the schema of its photos, "log" collects what it reports.
export async function serve({ gallery, url = READER, args = [] } = {}) {
  const searchPath = gallery ? `&options=-csearch_path%3D${gallery},public` : "";
  const child = spawn(process.env.DRAW ?? "target/release/sketch-draw", ["--url", url + searchPath, ...args]);
  const server = { child, log: "" };
  child.stderr.on("data", (text) => { server.log += text; });
  const exited = once(child, "exit").then(() => { throw new Error(`the server did not start: ${server.log}`); });
  exited.catch(() => {});
  [server.url] = await Promise.race([once(createInterface({ input: child.stdout }), "line"), exited]);
  server.port = new URL(server.url).port;
  server.stop = async () => {
    if (child.exitCode !== null) return;
    child.kill();
    await once(child, "exit");
  };
  return server;
}

// A container's user is often root, for whom Chromium has no sandbox.
export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", chromiumSandbox: process.getuid() !== 0 });

/// A drawing as lists of coordinates from 0 to 255: one of the demo, or this test's airplane.
export function drawing(name) {
  const folder = name === "airplane" ? "./" : "../../examples/demo/drawings/";
  return JSON.parse(readFileSync(new URL(`${folder}${name}.json`, import.meta.url)));
}

/// The points of a drawing's strokes on the canvas, in pixels of the window.
export async function strokesOn(page, name) {
  const box = await page.locator("#canvas").boundingBox();
  return drawing(name).map(([xs, ys]) => xs.map((x, i) => ({
    x: box.x + box.width * (.1 + .8 * x / 255),
    y: box.y + box.height * (.1 + .8 * ys[i] / 255),
  })));
}

/// Draws a stroke with the mouse. Leaves the button down if "release" is false.
export async function stroke(page, points, { release = true } = {}) {
  await page.mouse.move(points[0].x, points[0].y);
  await page.mouse.down();
  for (const { x, y } of points.slice(1)) await page.mouse.move(x, y, { steps: 4 });
  if (release) await page.mouse.up();
}

export async function draw(page, name) {
  for (const points of await strokesOn(page, name)) await stroke(page, points);
}

/// The names of the photos in their order, once the search for what is drawn has been answered.
export async function results(page) {
  await page.waitForTimeout(150);
  await page.waitForFunction(() => !document.querySelector(".found.stale") && document.querySelectorAll("#photos li").length > 0);
  await page.waitForLoadState("networkidle");
  return page.locator("#photos .name").allTextContents();
}
