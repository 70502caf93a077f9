// The page of examples/draw in a real browser, in front of a real gallery. tests/page/run.sh prepares both.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { request as rawRequest } from "node:http";
import { after, before, describe, test } from "node:test";
import { OWNER, cluster, draw, drawing, launch, results, serve, stroke, strokesOn } from "./page.js";

const axe = readFileSync(new URL("node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
const WCAG_AA = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
const fixture = (name) => new URL(`../../model/tests/fixtures/${name}`, import.meta.url).pathname;

let server;
let browser;
before(async () => {
  server = await serve();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await server?.stop();
});

/// Runs a test on a page of its own, and fails it if the page's script or policy reports an error.
function onPage(name, options, body = options) {
  test(name, { timeout: 60_000 }, async () => {
    const { path = "", server: its = server, ...context } = typeof options === "object" ? options : {};
    const window = await browser.newContext({ viewport: { width: 1200, height: 800 }, ...context });
    const page = await window.newPage();
    const errors = [];
    page.on("pageerror", (error) => errors.push(error.message));
    page.on("console", (message) => { if (/Content Security Policy/i.test(message.text())) errors.push(message.text()); });
    try {
      await page.goto(its.url + path);
      await page.locator("#examples button").first().waitFor();
      await body(page);
      assert.deepEqual(errors, []);
    } finally {
      await window.close();
    }
  });
}

const press = (page, name) => page.locator(`#${name}-button`).click();
const example = (page, name) => page.locator("#examples").getByRole("button", { name }).click();
const label = (page) => page.locator("#canvas").getAttribute("aria-label");
const trouble = (page) => page.locator("#trouble");
const settled = (page) => page.waitForFunction(() => document.querySelectorAll("#photos li").length === 0);

/// How many pixels of the canvas have ink, and the box around them as a part of its side.
const ink = (page) => page.evaluate(() => {
  const canvas = document.getElementById("canvas");
  const { data, width } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let [count, left, right] = [0, width, 0];
  for (let i = 3; i < data.length; i += 4) {
    if (data[i] < 128) continue;
    const x = ((i - 3) / 4) % width;
    [count, left, right] = [count + 1, Math.min(left, x), Math.max(right, x)];
  }
  return { count, left: left / width, right: right / width };
});

describe("drawing", () => {
  onPage("an airplane drawn with the mouse finds an airplane", async (page) => {
    await draw(page, "airplane");
    const names = await results(page);
    assert.equal(names.length, 24);
    assert.ok(names.slice(0, 5).includes("747"), names.slice(0, 5).join(", "));
    assert.match(await page.locator("#figures").textContent(), /^310 photos searched in \d+ ms$/);
  });

  onPage("photos come while the pen is still down", async (page) => {
    const [outline] = await strokesOn(page, "airplane");
    await stroke(page, outline, { release: false });
    await page.locator("#photos li").nth(23).waitFor();
    await page.mouse.up();
  });

  onPage("undo, redo and clear, with buttons and with keys", async (page) => {
    await draw(page, "airplane");
    const full = await ink(page);
    assert.equal(await label(page), "Drawing area, 5 strokes");
    await press(page, "undo");
    assert.equal(await label(page), "Drawing area, 4 strokes");
    assert.ok((await ink(page)).count < full.count);
    await page.keyboard.press("Control+z");
    assert.equal(await label(page), "Drawing area, 3 strokes");
    await press(page, "redo");
    await page.keyboard.press("Control+Shift+z");
    assert.equal(await label(page), "Drawing area, 5 strokes");
    assert.ok(Math.abs((await ink(page)).count / full.count - 1) < .05);
    await press(page, "clear");
    await settled(page);
    assert.equal((await ink(page)).count, 0);
    await page.keyboard.press("Control+z");
    assert.equal(await label(page), "Drawing area, 5 strokes");
    await page.keyboard.press("Delete");
    assert.equal(await label(page), "Drawing area, empty");
  });

  onPage("the eraser takes the whole stroke that it touches, and undo brings it back", async (page) => {
    await draw(page, "airplane");
    const wing = (await strokesOn(page, "airplane"))[2];
    await page.keyboard.press("e");
    assert.equal(await page.locator("#erase-button").getAttribute("aria-pressed"), "true");
    await stroke(page, [{ x: wing[0].x, y: wing[2].y }, wing[2]]);
    assert.equal(await label(page), "Drawing area, 4 strokes");
    await press(page, "undo");
    assert.equal(await label(page), "Drawing area, 5 strokes");
  });

  onPage("an answer that a newer search has overtaken is dropped", async (page) => {
    let slow = true;
    await page.route("**/search", async (route) => {
      if (slow) {
        slow = false;
        await new Promise((resolve) => setTimeout(resolve, 1500));
      }
      await route.continue().catch(() => {});
    });
    await example(page, "Car");
    await page.waitForTimeout(300);
    await example(page, "Hammer");
    const names = await results(page);
    await page.waitForTimeout(2000);
    assert.deepEqual(await results(page), names);
    assert.ok(names.slice(0, 5).some((name) => /hammer/i.test(name)), names.slice(0, 5).join(", "));
  });

  onPage("resizing and turning the screen lose nothing", async (page) => {
    await draw(page, "airplane");
    const names = await results(page);
    const [address, before] = [page.url(), await ink(page)];
    for (const viewport of [{ width: 844, height: 390 }, { width: 390, height: 844 }, { width: 1200, height: 800 }]) {
      await page.setViewportSize(viewport);
      await page.waitForTimeout(200);
      const now = await ink(page);
      assert.ok(Math.abs(now.left - before.left) < .02 && Math.abs(now.right - before.right) < .02, JSON.stringify({ viewport, before, now }));
    }
    await press(page, "clear");
    await settled(page);
    await press(page, "undo");
    assert.deepEqual(await results(page), names);
    assert.equal(page.url(), address);
  });

  onPage("a finger draws", { hasTouch: true, isMobile: true, viewport: { width: 390, height: 844 } }, async (page) => {
    const hand = await page.context().newCDPSession(page);
    const touch = (type, points) => hand.send("Input.dispatchTouchEvent", { type, touchPoints: points });
    for (const points of await strokesOn(page, "airplane")) {
      await touch("touchStart", [points[0]]);
      for (const point of points.slice(1)) await touch("touchMove", [point]);
      await touch("touchEnd", []);
    }
    assert.equal(await label(page), "Drawing area, 5 strokes");
    assert.ok((await results(page)).includes("747"));
    assert.equal(await page.evaluate(() => scrollY), 0);
  });

  onPage("a pen draws, and its other end erases", async (page) => {
    const hand = await page.context().newCDPSession(page);
    const pen = (type, point, force, buttons, button) =>
      hand.send("Input.dispatchMouseEvent", { type, ...point, force, buttons, button, pointerType: "pen", clickCount: 1 });
    const [outline, fin] = await strokesOn(page, "airplane");
    for (const points of [outline, fin]) {
      await pen("mousePressed", points[0], .3, 1, "left");
      for (const [i, point] of points.entries()) await pen("mouseMoved", point, .2 + .05 * i, 1, "left");
      await pen("mouseReleased", points.at(-1), 0, 0, "left");
    }
    assert.equal(await label(page), "Drawing area, 2 strokes");
    // The protocol has no button for a pen's other end.
    await page.locator("#canvas").evaluate((canvas, at) => {
      const fire = (type, buttons) => canvas.dispatchEvent(new PointerEvent(type, {
        pointerType: "pen", pointerId: 1, buttons, clientX: at.x, clientY: at.y, bubbles: true, cancelable: true,
      }));
      canvas.setPointerCapture = () => {};
      fire("pointerdown", 32);
      fire("pointerup", 0);
    }, fin[1]);
    assert.equal(await label(page), "Drawing area, 1 stroke");
  });
});

describe("images and examples", () => {
  const svg = () => `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 255 255" fill="none" stroke="black" stroke-width="4">${
    drawing("airplane").map(([x, y]) => `<polyline points="${x.map((_, i) => `${x[i]},${y[i]}`).join(" ")}"/>`).join("")}</svg>`;

  onPage("an SVG file", async (page) => {
    await page.setInputFiles("#file", { name: "plane.svg", mimeType: "image/svg+xml", buffer: Buffer.from(svg()) });
    assert.ok((await results(page)).slice(0, 5).includes("747"));
    assert.equal(await page.locator("#picture figcaption").textContent(), "Photos that look like this image");
    await press(page, "undo");
    assert.equal(await label(page), "Drawing area, empty");
  });

  onPage("a large photo travels small", async (page) => {
    const large = await page.evaluate(async () => {
      const canvas = new OffscreenCanvas(4000, 3000);
      const context = canvas.getContext("2d");
      context.fillStyle = "white";
      context.fillRect(0, 0, 4000, 3000);
      context.lineWidth = 40;
      context.strokeRect(800, 600, 2400, 1800);
      const reader = new FileReader();
      reader.readAsDataURL(await canvas.convertToBlob({ type: "image/jpeg" }));
      await new Promise((resolve) => { reader.onload = resolve; });
      return reader.result.split(",")[1];
    });
    const sent = page.waitForRequest("**/search");
    await page.setInputFiles("#file", { name: "photo.jpg", mimeType: "image/jpeg", buffer: Buffer.from(large, "base64") });
    const body = (await sent).postDataBuffer();
    assert.ok(!body || body.length < 1 << 20, `${body?.length} bytes`);
    const side = await page.locator("#picture img").evaluate(async (image) => {
      await image.decode();
      return image.naturalWidth;
    });
    assert.equal(side, 1024);
    assert.equal((await results(page)).length, 24);
  });

  onPage("an image that is dropped, and one that is pasted", async (page) => {
    const send = (type) => page.evaluate(({ type, text }) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([text], "plane.svg", { type: "image/svg+xml" }));
      const [Event, field] = type === "drop" ? [DragEvent, "dataTransfer"] : [ClipboardEvent, "clipboardData"];
      document.body.dispatchEvent(new Event(type, { [field]: transfer, bubbles: true, cancelable: true }));
    }, { type, text: svg() });
    await send("drop");
    const names = await results(page);
    assert.ok(names.slice(0, 5).includes("747"));
    await press(page, "clear");
    await settled(page);
    await send("paste");
    assert.deepEqual(await results(page), names);
  });

  onPage("a file that is no image, and an image that is no drawing", async (page) => {
    await page.setInputFiles("#file", { name: "notes.png", mimeType: "image/png", buffer: Buffer.from("no image") });
    await trouble(page).waitFor();
    assert.match(await trouble(page).textContent(), /not an image that can be read/);
    const torn = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg"></svg>');
    await page.setInputFiles("#file", { name: "empty.svg", mimeType: "image/svg+xml", buffer: torn });
    await page.waitForFunction(() => /cannot be read: it is empty/.test(document.getElementById("trouble").textContent));
    await page.setInputFiles("#file", fixture("plain.png"));
    await results(page);
    assert.ok(await trouble(page).isHidden());
  });

  onPage("an example, by keyboard alone", async (page) => {
    for (let presses = 0; presses < 20; presses++) {
      await page.keyboard.press("Tab");
      if (await page.evaluate(() => document.activeElement.getAttribute("aria-label")?.endsWith("Teapot"))) break;
    }
    assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "none");
    await page.keyboard.press("Enter");
    const names = await results(page);
    assert.ok(names.slice(0, 5).some((name) => /teapot/i.test(name)), names.slice(0, 5).join(", "));
    await page.waitForFunction(() => /^24 photos found. Nearest: /.test(document.getElementById("status").textContent));
    assert.equal(await page.locator("#status").getAttribute("aria-live"), "polite");
    // Every button that is enabled can be reached.
    const reached = new Set();
    for (let presses = 0; presses < 80; presses++) {
      await page.keyboard.press("Tab");
      reached.add(await page.evaluate(() => [...document.querySelectorAll("button, a")].indexOf(document.activeElement)));
    }
    const enabled = await page.evaluate(() =>
      [...document.querySelectorAll("button, a")].flatMap((button, i) => button.disabled ? [] : [i]));
    assert.deepEqual(enabled.filter((i) => !reached.has(i)), []);
  });
});

describe("photos", () => {
  onPage("a click on a photo finds more like it, and undo returns to the drawing", async (page) => {
    await draw(page, "airplane");
    const names = await results(page);
    await page.locator("#photos .photo").first().click();
    await page.waitForFunction(() => !document.getElementById("picture").hidden);
    const like = await results(page);
    assert.equal(await page.locator("#picture figcaption").textContent(), `More like ${names[0]}`);
    assert.notDeepEqual(like, names);
    assert.match(page.url(), /#photo=\d+/);
    await page.reload();
    assert.deepEqual(await results(page), like);
  });

  onPage("thumbnails load, and the photo opens", async (page) => {
    await example(page, "Teapot");
    await results(page);
    const broken = await page.evaluate(() => [...document.querySelectorAll("#photos img")].filter((image) => !image.naturalWidth).length);
    assert.equal(broken, 0);
    const href = await page.locator("#photos a").first().getAttribute("href");
    const photo = await page.request.get(server.url + href.slice(1));
    assert.equal(photo.headers()["content-type"], "image/png");
  });

  onPage("an address shares a drawing", { permissions: ["clipboard-read", "clipboard-write"] }, async (page) => {
    await draw(page, "airplane");
    const names = await results(page);
    await press(page, "link");
    const link = await page.waitForFunction(() => navigator.clipboard.readText());
    const other = await page.context().newPage();
    await other.goto(await link.jsonValue());
    assert.ok((await results(other)).slice(0, 5).includes("747"));
    assert.equal(await label(other), "Drawing area, 5 strokes");
    const address = other.url();
    await press(other, "undo");
    await press(other, "redo");
    await results(other);
    assert.equal(other.url(), address);
    assert.ok(names.length > 0 && address.length < 400, address);
  });

  onPage("a photo that is gone", { path: "#photo=999999" }, async (page) => {
    await trouble(page).waitFor();
    assert.match(await trouble(page).textContent(), /not in the gallery any more/);
  });

  test("an empty gallery says what to do", async () => {
    const empty = await serve({ gallery: "empty" });
    const page = await browser.newPage();
    await page.goto(empty.url);
    await page.getByText("make draw PHOTOS=folder").waitFor();
    await page.close();
    await empty.stop();
  });
});

describe("for everyone", () => {
  for (const width of [390, 320]) {
    onPage(`a screen of ${width} pixels`, { viewport: { width, height: 720 }, isMobile: true, hasTouch: true }, async (page) => {
      await draw(page, "airplane");
      await results(page);
      assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
      const heights = await page.locator(".tools button").evaluateAll((buttons) => buttons.map((button) => button.offsetHeight));
      assert.ok(Math.min(...heights) >= 44, heights.join(" "));
      const photos = await page.locator("#photos li").first().boundingBox();
      assert.ok(photos.y < 720, `the first photo is at ${photos.y}`);
    });
  }

  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1200, 390]) {
      onPage(`WCAG AA, ${colorScheme}, ${width} pixels`, { colorScheme, viewport: { width, height: 800 } }, async (page) => {
        const check = async () => {
          // The page's policy allows no script from elsewhere, so the browser itself evaluates it.
          const session = await page.context().newCDPSession(page);
          await session.send("Runtime.evaluate", { expression: axe });
          const { violations } = await page.evaluate((tags) => window.axe.run({ runOnly: tags }), WCAG_AA);
          assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`), []);
        };
        await check();
        await draw(page, "airplane");
        await results(page);
        await page.setInputFiles("#file", { name: "notes.png", mimeType: "image/png", buffer: Buffer.from("no image") });
        await trouble(page).waitFor();
        await check();
        await page.locator("#photos .photo").first().click();
        await results(page);
        await check();
      });
    }
  }
});

describe("trouble", () => {
  test("the page's server stops in the middle", { timeout: 60_000 }, async () => {
    const first = await serve();
    const page = await browser.newPage();
    await page.goto(first.url);
    await draw(page, "airplane");
    const names = await results(page);
    await first.stop();
    const [extra] = await strokesOn(page, "airplane");
    await stroke(page, extra.slice(0, 3));
    await trouble(page).waitFor();
    assert.match(await trouble(page).textContent(), /does not answer.*your drawing stays/);
    assert.equal(await label(page), "Drawing area, 6 strokes");
    await press(page, "undo");
    const second = await serve({ args: ["--listen", `127.0.0.1:${first.port}`] });
    await trouble(page).waitFor({ state: "hidden" });
    assert.deepEqual(await results(page), names);
    await page.close();
    await second.stop();
  });

  onPage("the database stops in the middle", async (page) => {
    await draw(page, "airplane");
    const names = await results(page);
    cluster("stop");
    try {
      await example(page, "Car");
      await trouble(page).waitFor();
      const words = await trouble(page).textContent();
      assert.match(words, /The database does not answer/);
      assert.doesNotMatch(words, /SELECT|ERROR|socket|sketch_/);
    } finally {
      cluster("start");
    }
    await trouble(page).waitFor({ state: "hidden" });
    assert.notDeepEqual(await results(page), names);
  });

  onPage("too many searches at once", async (page) => {
    const statuses = await page.evaluate(async () => {
      const body = "[[[0, 1], [0, 1]]]";
      return Promise.all(Array.from({ length: 120 }, () => fetch("/search", { method: "POST", body }).then(({ status }) => status)));
    });
    assert.ok(statuses.includes(200) && statuses.includes(429), statuses.join(" "));
    await example(page, "Car");
    assert.equal((await results(page)).length, 24);
  });
});

describe("safe by default", () => {
  const post = (path, body, headers = {}) => fetch(server.url + path, { method: "POST", body, headers });

  test("a policy and headers with every answer", async () => {
    for (const path of ["", "draw.js", "healthz", "photo/1?size=64", "photo/x", "nothing"]) {
      const { headers } = await fetch(server.url + path);
      assert.match(headers.get("content-security-policy"), /^default-src 'none'; script-src 'self'; style-src 'self'/);
      assert.equal(headers.get("x-content-type-options"), "nosniff");
      assert.equal(headers.get("cross-origin-resource-policy"), "same-origin");
    }
  });

  test("only this machine, under its own name", async () => {
    assert.equal(new URL(server.url).hostname, "127.0.0.1");
    const status = await new Promise((resolve, reject) => {
      const asked = rawRequest(server.url, { headers: { host: "photos.example.com" } }, (answer) => resolve(answer.resume().statusCode));
      asked.on("error", reject).end();
    });
    assert.equal(status, 421);
  });

  test("bodies have a limit, and parameters are no SQL", async () => {
    const large = await post("search", new Uint8Array((8 << 20) + 1));
    assert.equal(large.status, 413);
    assert.match((await large.json()).error, /too large/);
    assert.equal((await post("search?like=1;DROP TABLE photo")).status, 400);
    const bad = await post("search", "'; DROP TABLE photo; --");
    assert.equal(bad.status, 422);
    assert.doesNotMatch((await bad.json()).error, /DROP|SELECT|ERROR/);
  });

  test("a role that can write is refused", async () => {
    await assert.rejects(serve({ url: OWNER }), /role "postgres" can change photos/);
  });
});

describe("speed", () => {
  test("10,000 photos are searched in less than 100 ms", { timeout: 60_000 }, async () => {
    const many = await serve({ gallery: "many" });
    const page = await browser.newPage();
    await page.goto(many.url);
    await draw(page, "airplane");
    await results(page);
    const times = [];
    for (let round = 0; round < 21; round++) {
      await press(page, round % 2 ? "redo" : "undo");
      await page.waitForFunction(() => !document.querySelector(".found.stale"));
      await results(page);
      const text = await page.locator("#figures").textContent();
      times.push(Number(/^10,000 photos searched in (\d+) ms$/.exec(text)[1]));
    }
    times.sort((a, b) => a - b);
    console.log(`10,000 photos: median ${times[10]} ms, slowest ${times[20]} ms, from the page's request to its answer`);
    assert.ok(times[10] < 100, times.join(" "));
    await page.close();
    await many.stop();
  });
});
