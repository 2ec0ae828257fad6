// Live progress of the run that is shown. Everything else works without it.
"use strict";
const live = document.querySelector("[data-run]");
const samples = []; // [seconds, sites done] of the last ten seconds
let spoken = -Infinity;

function show(run) {
  if (run.ended_at) {
    source.close();
    location.replace(location.pathname + location.search); // a GET, also where a form led here
    return;
  }
  const now = performance.now() / 1000;
  samples.push([now, run.sites_done]);
  while (samples.length > 2 && now - samples[0][0] > 10) samples.shift();
  const [then, before] = samples[0];
  const rate = now > then ? (run.sites_done - before) / (now - then) : 0;
  const number = (n) => Math.round(n).toLocaleString("en");
  let text = `${number(run.sites_done)} of ${number(run.sites_listed)} sites${run.batches.all_listed ? "" : " listed so far"}`;
  if (rate) text += `, ${rate.toFixed(1)} a second`;
  const left = (run.sites_listed - run.sites_done) / rate;
  if (rate && run.batches.all_listed) text += left < 100 ? `, ${number(left)} s left` : `, ${number(left / 60)} min left`;
  const badge = live.querySelector(".badge");
  badge.textContent = run.status;
  badge.className = `badge ${run.status}`;
  const bar = live.querySelector("progress");
  bar.max = Math.max(1, run.sites_listed);
  bar.value = run.sites_done;
  if (run.status !== "running") return;
  live.querySelector("[data-text]").textContent = `${text}.`;
  if (now - spoken > 10) {
    live.querySelector("[role=status]").textContent = `${text}.`; // read out, but not at every event
    spoken = now;
  }
}

async function poll(url) {
  const answer = await fetch(url);
  if (answer.ok) show(await answer.json());
}

const address = live && `/wp-json/all-sites-cron/v1/runs/${live.dataset.run}`;
const source = live && new EventSource(`${address}/events`);
if (source) {
  source.addEventListener("run", (event) => show(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    if (source.readyState === EventSource.CLOSED) setInterval(poll, 2000, address); // refused: too many watch
  });
}
