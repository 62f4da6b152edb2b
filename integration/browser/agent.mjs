// Walks the page of a real agent beside a real server: somebody who has the token starts a backup and a drill, and sees what came of them.
// node agent.mjs CHROMIUM OUT TOKEN ADDRESS
import assert from "node:assert/strict";
import { accessible, begin, checked, complaints, end, fits, logIn, marks, open, visit } from "./walk.mjs";

const [executablePath, out, token, address] = process.argv.slice(2);
await begin(executablePath);
const page = await open("light");
const told = async (path) => (await (await fetch(`${address}/api/v1/${path}`)).json());

// What runs tell of how far they are, for as long as they are shown.
await page.addInitScript(() => {
  window.seen = [];
  addEventListener("DOMContentLoaded", () => {
    const look = () => {
      const text = [...document.querySelectorAll("section.run .phase")].map((phase) => phase.textContent).join(" | ");
      if (text && text !== window.seen.at(-1)) window.seen.push(text);
    };
    look();
    new MutationObserver(look).observe(document.getElementById("main"), { childList: true, subtree: true });
  });
});

// Before: one backup, which the agent took by itself, and no proof. Nobody can start anything.
await visit(page, address);
assert.match(await page.locator("#verdict").textContent(), /^Everything can be restored; 1 of 1 server to look at$/);
const server = await page.locator("table.fleet tbody th a").getAttribute("href");
await visit(page, address + server);
assert.equal(await page.locator("#backups ~ .scroll tbody tr").count(), 1);
assert.deepEqual(await marks(page, ["full", "incremental"]), [1, 0]);
await visit(page, `${address}/running`);
assert.equal(await page.getByRole("button", { name: "Back up now" }).count(), 0);
const following = page.locator("#archive ~ dl div", { hasText: "Following" }).locator("dd");
assert.equal(await following.textContent(), "yes");
checked(5);

// Another token opens nothing.
await visit(page, `${address}/login`);
await page.fill("#token", `${token}x`);
await page.getByRole("button", { name: "Log in" }).click();
await page.waitForSelector("#problem");
assert.match(await page.locator("#problem").textContent(), /not the token/);
assert.deepEqual(await page.context().cookies(), []);
assert.match(complaints.pop(), /401/);
await accessible(page);
await visit(page, `${address}/running`);
await logIn(page, token);
checked(3);

/**
 * Starts a job by its button, watches it go on, and waits for its end, without the page being loaded again; what it said at its end. It
 * tells how far it is `times` times at least, since the page follows once a second.
 */
async function watch(button, job, name, times) {
  await page.getByRole("button", { name: button }).click();
  const run = page.locator("section.run", { hasText: new RegExp(`^\\s*${job}`) });
  await run.waitFor();
  await page.evaluate(() => { window.stayed = true; });
  const number = (await run.getAttribute("id")).replace("run-", "");
  assert.match(await run.locator("h2").textContent(), /by page/);
  await page.waitForFunction(() => window.seen.length > 0);
  await page.screenshot({ path: `${out}/${name}-light.png`, fullPage: true });
  await accessible(page);
  await page.waitForFunction(() => !document.querySelector("section.run"), null, { timeout: 120000 });
  const ended = page.locator("#recent ~ .scroll tbody tr", { has: page.locator("th", { hasText: new RegExp(`^${job} ${number}by page`) }) });
  await ended.waitFor();
  assert.equal((await ended.locator(".badge").textContent()).trim(), "succeeded", await ended.textContent());
  assert.ok(await page.evaluate(() => window.stayed), "the page was loaded anew");
  const seen = await page.evaluate(() => window.seen);
  assert.ok(seen.length >= times, seen.join("\n"));
  checked(5);
  return ended.locator("td.wide").textContent();
}

// A backup, and where it then stands.
const said = await watch("Back up now", "backup", "agent-backup", 2);
const [, kind, id] = said.match(/^(full|incremental) backup (\S+), \S+ \S+ uploaded/);
assert.equal(kind, "incremental", said);
await visit(page, address + server);
// The agent looks at the repository when the run has ended; an open page follows.
await page.waitForFunction((id) => document.querySelector("#backups ~ .scroll tbody tr th").textContent === id, id);
assert.equal(await page.locator("#backups ~ .scroll tbody tr").count(), 2);
assert.deepEqual(await marks(page, ["full", "incremental", "drill"]), [1, 1, 0]);
await accessible(page);
await page.getByRole("link", { name: id }).first().click();
await page.waitForURL(new RegExp(`/backups/${id}`));
const backup = page.url();
const text = await page.locator("#main").textContent();
const { restore_command: command } = await told(`${server.slice(1)}/backups/${id}`);
assert.ok(text.includes(command) && command.includes(id), text);
await page.getByRole("link", { name: "Read the tables" }).click();
await page.getByRole("rowheader", { name: /picture/ }).waitFor();
await accessible(page);
checked(5);

// A drill, and its proof.
await visit(page, `${address}/running`);
const proven = await watch("Drill now", "drill", "agent-drill", 1);
assert.match(proven, new RegExp(`^backup ${id} restores, and answered after [0-9.]+ ?(ms|s|m)\\b`));
await visit(page, address + server);
await page.waitForSelector("#drills ~ .scroll tbody tr .badge.fine");
const proof = await page.locator("#drills ~ .scroll tbody tr").first().textContent();
assert.ok(proof.includes("passed") && proof.includes(id), proof);
assert.deepEqual(await marks(page, ["full", "incremental", "drill"]), [1, 1, 1]);
const row = page.locator("#backups ~ .scroll tbody tr").first();
assert.notEqual((await row.locator("td").nth(6).textContent()).trim(), "", "the backup is called proven");
await accessible(page);
await visit(page, address);
assert.equal(await page.locator("#verdict").textContent(), "Everything can be restored");
const [{ standing, last_proven: last, rto_seconds: rto }] = (await told("fleet")).servers;
assert.ok(standing === "fine" && last && rto > 0);
checked(7);

// The same on a phone, and what comes next.
const phone = await open("dark", 375, 800);
for (const path of ["/", server, backup.slice(address.length), "/running", "/upcoming"]) {
  await visit(phone, address + path);
  await fits(phone);
  await accessible(phone);
}
assert.match(await phone.locator("#main").textContent(), /backup/);

// Whoever has logged out can start nothing any more.
await visit(page, `${address}/running`);
await page.getByRole("button", { name: "Log out" }).click();
await page.waitForURL(`${address}/`);
await visit(page, `${address}/running`);
assert.equal(await page.getByRole("button", { name: "Drill now" }).count(), 0);
checked(2);
await end("of an agent beside a server");
