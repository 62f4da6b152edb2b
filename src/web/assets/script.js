// Brings moments into the viewer's zone, copies commands, and fetches the page anew when something has changed. Without it all is there, in UTC.
"use strict";
(() => {
  const pad = (number) => String(number).padStart(2, "0");
  const day = (at) => `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`;
  const clock = (at, seconds) => `${pad(at.getHours())}:${pad(at.getMinutes())}${seconds ? `:${pad(at.getSeconds())}` : ""}`;
  const short = new Intl.DateTimeFormat("en-GB", { day: "2-digit", month: "short" });

  function local(root) {
    for (const element of root.querySelectorAll("time[datetime]")) {
      const at = new Date(element.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      element.title = element.dateTime;
      element.textContent = `${day(at)} ${clock(at, element.hasAttribute("data-seconds"))}`;
    }
    for (const element of root.querySelectorAll("[data-time]")) {
      const at = new Date(element.dataset.time);
      if (Number.isNaN(at.getTime())) continue;
      element.textContent = short.format(at) + (element.dataset.style === "hour" ? ` ${clock(at, false)}` : "");
    }
    for (const button of root.querySelectorAll("button[data-copy]")) {
      button.hidden = !navigator.clipboard;
    }
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    const text = document.getElementById(button.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });

  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const told = document.getElementById("zone");
  if (zone && told) told.textContent = `times in ${zone}`;
  local(document);

  // Somebody who types, reads a menu or has marked text is not disturbed.
  const busy = () => {
    const active = document.activeElement;
    const types = active && ["INPUT", "SELECT", "TEXTAREA"].includes(active.tagName);
    return document.hidden || types || !document.getSelection().isCollapsed;
  };
  let shown = null;
  let waiting = false;
  let working = false;
  async function refresh() {
    waiting = true;
    if (working || busy()) return;
    working = true;
    try {
      while (waiting && !busy()) {
        waiting = false;
        const answer = await fetch(location.href, { headers: { accept: "text/html" } });
        if (!answer.ok) break;
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
        const [main, old] = [fresh.getElementById("main"), document.getElementById("main")];
        if (!main || main.innerHTML === shown) continue;
        const source = main.innerHTML;
        local(main);
        const active = document.activeElement;
        const place = old.contains(active) ? [...old.querySelectorAll("a, button, [tabindex]")].indexOf(active) : -1;
        const scrolled = [...old.querySelectorAll(".scroll, .log")].map((box) => [box.scrollLeft, box.scrollTop]);
        old.replaceChildren(...main.childNodes);
        shown = source;
        [...old.querySelectorAll(".scroll, .log")].forEach((box, at) => {
          if (scrolled[at]) [box.scrollLeft, box.scrollTop] = scrolled[at];
        });
        const again = place >= 0 && old.querySelectorAll("a, button, [tabindex]")[place];
        if (again) again.focus({ preventScroll: true });
      }
    } catch {
      // The service may be starting anew; the next event tries again.
    } finally {
      working = false;
    }
  }

  if (!window.EventSource || document.querySelector("form[action='/login']")) return;
  const live = document.getElementById("live");
  let first = true;
  let lost = false;
  const source = new EventSource("/events");
  source.addEventListener("changed", () => {
    if (lost) live.textContent = "· live";
    lost = false;
    if (!first) refresh();
    first = false;
  });
  source.addEventListener("open", () => { live.textContent = "· live"; });
  source.addEventListener("error", () => {
    live.textContent = "· connection lost";
    lost = true;
    first = false;
  });
  document.addEventListener("visibilitychange", () => { if (waiting) refresh(); });
  document.addEventListener("focusout", () => { if (waiting) setTimeout(refresh, 0); });
  // What is told as an age grows old by itself.
  setInterval(refresh, 60000);
})();
