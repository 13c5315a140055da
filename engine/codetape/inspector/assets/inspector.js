// Keys, copying, parts that load when they are opened, and pages that follow a run. Recorded text is never made markup
// here: what is put into the page is what the server rendered.
"use strict";
(() => {
  const base = document.body.dataset.base;
  const steps = () => [...document.querySelectorAll("[data-step]")];
  let current = -1;

  function select(number, focus) {
    const all = steps();
    if (!all.length) return;
    current = Math.max(0, Math.min(all.length - 1, number));
    all.forEach((step, at) => step.classList.toggle("current", at === current));
    document.querySelectorAll("#strip a").forEach((link, at) => {
      link.classList.toggle("current", at === current);
      if (at === current) {
        link.setAttribute("aria-current", "step");
        const strip = link.parentElement;
        strip.scrollLeft = link.offsetLeft - strip.clientWidth / 2;
      } else link.removeAttribute("aria-current");
    });
    if (focus) {
      all[current].scrollIntoView({ block: "start" });
      all[current].focus({ preventScroll: true });
    }
  }

  function go(address) {
    if (address) location.href = address;
  }

  const help = document.getElementById("help");
  document.getElementById("help-open").addEventListener("click", () => help.showModal());

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea, dialog");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    const action = {
      h: () => select(current - 1, true),
      l: () => select(current + 1, true),
      0: () => select(0, true),
      $: () => select(steps().length - 1, true),
      j: () => scrollBy({ top: 90 }),
      k: () => scrollBy({ top: -90 }),
      H: () => go(document.body.dataset.newer),
      L: () => go(document.body.dataset.older),
      "?": () => help.showModal(),
    }[event.key];
    if (action) {
      event.preventDefault();
      action();
    }
  });

  async function load(details) {
    const body = details.querySelector(".body");
    const address = details.dataset.body;
    if (!address || details.dataset.loaded) return;
    details.dataset.loaded = "yes";
    try {
      const reply = await fetch(address);
      if (!reply.ok) throw new Error(String(reply.status));
      body.replaceChildren(...new DOMParser().parseFromString(await reply.text(), "text/html").body.childNodes);
    } catch {
      delete details.dataset.loaded;
      body.textContent = "It could not be loaded: is codetape view still running?";
    }
  }

  function openTarget() {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (!target) return;
    if (target.tagName === "DETAILS") target.open = true;
    const step = target.closest("[data-step]");
    if (step) select(steps().indexOf(step), false);
  }

  document.addEventListener("toggle", (event) => {
    if (event.target.open && event.target.matches("details[data-body]")) load(event.target);
  }, true);
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      const code = button.parentElement.querySelector("code");
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  document.addEventListener("click", (event) => {
    const header = event.target.closest("[data-step] > header");
    if (header) select(steps().indexOf(header.parentElement), false);
  });
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form.filters");
    if (form) form.requestSubmit();
  });
  addEventListener("hashchange", openTarget);
  openTarget();
  const strip = document.getElementById("strip");
  if (strip && current < 0) strip.scrollLeft = strip.scrollWidth; // how it ended comes first

  // ---- following a run

  const live = document.getElementById("live");
  if (!base || !live) return;
  let busy = false;
  let again = false;

  async function refresh() {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      const reply = await fetch(location.pathname + location.search);
      const page = new DOMParser().parseFromString(await reply.text(), "text/html");
      if (reply.ok && page.body.dataset.head !== document.body.dataset.head) {
        const open = [...document.querySelectorAll("details[open][id]")].map((element) => element.id);
        const old = document.getElementById("main");
        const fresh = page.getElementById("main");
        old.replaceChildren(...fresh.childNodes);
        document.body.dataset.head = page.body.dataset.head;
        document.title = page.title;
        for (const id of open) {
          const details = document.getElementById(id);
          if (details) details.open = true;
        }
        if (current >= 0) select(current, false);
      }
    } catch {
      // the stream below says that the server is gone
    }
    busy = false;
    if (again) {
      again = false;
      refresh();
    }
  }

  const stream = new EventSource(`${base}/changes`);
  stream.addEventListener("open", () => {
    live.className = "live on";
    live.textContent = "live";
  });
  stream.addEventListener("error", () => {
    live.className = "live off";
    live.textContent = "not connected";
  });
  stream.addEventListener("changed", refresh);
})();
