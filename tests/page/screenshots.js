// Writes the pictures of the page in docs/.
import { draw, launch, results, serve } from "./page.js";

const server = await serve();
const browser = await launch();
const shots = [
  { file: "docs/draw.jpg", viewport: { width: 1200, height: 750 }, drawing: "teapot" },
  { file: "docs/draw-phone.jpg", viewport: { width: 390, height: 780 }, drawing: "elephant", isMobile: true, hasTouch: true, colorScheme: "dark" },
];
for (const { file, drawing, ...context } of shots) {
  const page = await browser.newPage({ deviceScaleFactor: context.isMobile ? 1.5 : 1, ...context });
  await page.goto(server.url);
  await draw(page, drawing);
  await results(page);
  await page.mouse.move(0, 0);
  await page.screenshot({ path: file, type: "jpeg", quality: 88 });
  console.log(file);
}
await browser.close();
await server.stop();
