// Opens the page in a real browser, walks it by keyboard, starts a drill, and looks for what keeps people out.
// node page.mjs CHROMIUM OUT TOKEN ADDRESS-OF-ONE ADDRESS-OF-MANY ADDRESS-OF-A-THOUSAND
import assert from "node:assert/strict";
import { accessible, begin, checked, complaints, end, fits, logIn, marks, open, visit } from "./walk.mjs";

const [executablePath, out, token, one, many, thousand] = process.argv.slice(2);
const browser = await begin(executablePath);

async function firstServer(page, address) {
  await visit(page, address);
  return page.locator("table.fleet tbody tr.fine th a, table.fleet tbody th a").first().getAttribute("href");
}

for (const scheme of ["light", "dark"]) {
  const page = await open(scheme);
  const server = await firstServer(page, one);
  const backup = await (async () => {
    await visit(page, one + server);
    return page.locator("a.button.primary").first().getAttribute("href");
  })();
  const pages = { fleet: many, server: one + server, backup: one + backup, running: `${one}/running`, upcoming: `${one}/upcoming`, login: `${one}/login` };
  for (const [name, address] of Object.entries(pages)) {
    await visit(page, address);
    await accessible(page);
    await page.screenshot({ path: `${out}/${name}-${scheme}.png`, fullPage: true });
  }
  await visit(page, one);
  await page.screenshot({ path: `${out}/fleet-of-one-${scheme}.png`, fullPage: true });
  await visit(page, thousand);
  await accessible(page);
  await page.screenshot({ path: `${out}/fleet-of-a-thousand-${scheme}.png` });
  const phone = await open(scheme, 375, 800);
  for (const [name, address] of Object.entries(pages)) {
    await visit(phone, address);
    await fits(phone);
    await accessible(phone);
    await phone.screenshot({ path: `${out}/phone-${name}-${scheme}.png`, fullPage: name !== "fleet" });
  }
  await page.context().close();
  await phone.context().close();
}

// The timeline is drawn, with marks where backups, windows and drills are.
{
  const page = await open("light");
  const server = await firstServer(page, one);
  await visit(page, one + server);
  const drawn = await marks(page, ["full", "incremental", "window", "drill"]);
  assert.ok(drawn.every((count) => count > 0), `marks in the timeline: ${drawn}`);
  const shown = await page.locator("time").first().textContent();
  const expected = await page.locator("time").first().evaluate((time) => {
    const at = new Date(time.dateTime);
    const pad = (number) => String(number).padStart(2, "0");
    return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${pad(at.getHours())}:${pad(at.getMinutes())}`;
  });
  assert.equal(shown, expected, "moments are in the viewer's zone");
  checked(2);
  await page.context().close();
}

// Without a script it is all there, in UTC.
{
  const context = await browser.newContext({ javaScriptEnabled: false });
  const page = await context.newPage();
  await page.goto(many);
  await page.fill("#q", "billing");
  await page.press("#q", "Enter");
  await page.waitForURL(/q=billing/);
  const names = await page.locator("table.fleet tbody th a").allTextContents();
  assert.ok(names.length > 0 && names.every((name) => name.includes("billing")), names.join());
  assert.ok((await page.locator("time").first().textContent()).endsWith("UTC"));
  checked(2);
  await context.close();
}

// By keyboard alone: to the content, along the table, into a server; each thing that has the focus shows it.
{
  const page = await open("light");
  await visit(page, many);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  let reached = "";
  for (let steps = 0; steps < 60 && !reached.startsWith("/servers/"); steps += 1) {
    await page.keyboard.press("Tab");
    const at = await page.evaluate(() => {
      const style = getComputedStyle(document.activeElement);
      return { href: document.activeElement.getAttribute("href") ?? "", outline: style.outlineStyle, width: parseFloat(style.outlineWidth) };
    });
    assert.ok(at.outline !== "none" && at.width >= 2, `the focus on ${at.href} cannot be seen`);
    reached = at.href;
  }
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/servers\//);
  checked(2);
  await page.context().close();
}

// A drill is started by somebody who knows the token, and seen to go on and to end without the page being loaded again.
{
  const page = await open("light");
  await visit(page, `${one}/running`);
  assert.equal(await page.getByRole("button", { name: "Drill now" }).count(), 0);
  await logIn(page, token);
  const cookies = await page.context().cookies();
  assert.ok(cookies.length === 1 && cookies[0].httpOnly && cookies[0].sameSite === "Strict");
  const forged = await page.evaluate(async () => {
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    const answer = await fetch("/runs", { method: "POST", headers, body: "csrf=00&job=drill" });
    await answer.text();
    return answer.status;
  });
  assert.equal(forged, 403);
  complaints.pop(); // The browser tells of the 403 that was wanted.
  await page.getByRole("button", { name: "Drill now" }).click();
  await page.waitForSelector("section.run");
  await page.evaluate(() => { window.stayed = true; });
  const bar = page.locator("[role=progressbar]").first();
  const first = Number(await bar.getAttribute("aria-valuenow"));
  await page.waitForFunction((first) => Number(document.querySelector("[role=progressbar]")?.getAttribute("aria-valuenow") ?? 0) > first, first);
  await page.screenshot({ path: `${out}/drill-light.png`, fullPage: true });
  await page.waitForFunction(() => !document.querySelector("section.run") && document.querySelector("#recent ~ .scroll tbody tr th").textContent.startsWith("drill"), null, { timeout: 30000 });
  assert.ok(await page.evaluate(() => window.stayed), "the page was loaded anew");
  checked(3);
  await page.context().close();
}

await end("of simulated fleets");
