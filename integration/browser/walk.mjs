// What the walks share: a real browser, pages that tell what goes wrong in them, and a count of what was looked at.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
export const complaints = [];
let browser;
let checks = 0;

export async function begin(executablePath) {
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"] });
  return browser;
}

/** Counts `number` things that were looked at. */
export function checked(number = 1) {
  checks += number;
}

/** Ends the browser; fails when anything was complained of. */
export async function end(what) {
  await browser.close();
  assert.deepEqual(complaints, []);
  console.log(`${checks} checks in a browser, ${what}: all well`);
}

export async function open(scheme, width = 1280, height = 900) {
  // Axe is put into the page from outside, which the page's own policy would forbid.
  const context = await browser.newContext({ colorScheme: scheme, viewport: { width, height }, bypassCSP: true, timezoneId: "Europe/Berlin" });
  const page = await context.newPage();
  page.on("console", (message) => { if (message.type() === "error") complaints.push(`${page.url()}: ${message.text()}`); });
  page.on("pageerror", (error) => complaints.push(`${page.url()}: ${error}`));
  page.on("requestfailed", (request) => {
    if (!request.url().endsWith("/events")) complaints.push(`${request.url()}: ${request.failure().errorText}`);
  });
  return page;
}

export async function visit(page, address) {
  const answer = await page.goto(address, { waitUntil: "load" });
  assert.equal(answer.status(), 200, address);
  await page.waitForFunction(() => document.getElementById("zone").textContent.includes("Europe/Berlin"));
}

export async function accessible(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const told = violations.map((found) => `${found.id}: ${found.nodes.map((node) => node.html.slice(0, 160)).slice(0, 3).join(" | ")}`);
  complaints.push(...told.map((fault) => `${page.url()} (${page.viewportSize().width}): ${fault}`));
  checked();
}

export async function fits(page) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  if (wide > 0) complaints.push(`${page.url()} scrolls sideways by ${wide} pixels`);
  checked();
}

/** How many marks of each name the timeline shows. */
export async function marks(page, names) {
  return page.evaluate((names) => names.map((name) => {
    const all = [...document.querySelectorAll(`[aria-label=Timeline] svg .${name}`)];
    return all.filter((mark) => mark.getBoundingClientRect().width > 0).length;
  }), names);
}

/** Logs in with the token, as somebody at /running does. */
export async function logIn(page, token) {
  await page.getByRole("link", { name: "Log in" }).first().click();
  await page.fill("#token", token);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.waitForURL(/\/running/);
}
