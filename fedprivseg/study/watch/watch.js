// Shows what the server sends, as text alone: nothing that a site said of itself becomes markup.
"use strict";

const at = (id) => document.getElementById(id);

function element(tag, content = "", name = "") {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.append(...[content].flat());
  return made;
}

function replaced(id, children) {
  at(id).replaceChildren(...children);
}

function bytes(value) {
  for (const [unit, factor] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (value >= factor) return `${(value / factor).toFixed(1)}\u00a0${unit}`;
  }
  return `${value}\u00a0B`;
}

function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)}\u00a0s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 120) return `${minutes}\u00a0min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours}\u00a0h ${String(minutes % 60).padStart(2, "0")}\u00a0min` : `${Math.floor(hours / 24)}\u00a0d ${hours % 24}\u00a0h`;
}

function clock(text) {
  if (!text) return "–";
  const moment = new Date(text);
  const time = moment.toLocaleTimeString([], { hour12: false });
  return moment.toDateString() === new Date().toDateString() ? time : `${moment.toLocaleDateString()} ${time}`;
}

const total = (sites, what) => sites.reduce((sum, site) => sum + site[what], 0);
const held = (site) => Object.values(site.blocked).reduce((sum, count) => sum + count, 0);

function bar(doing) {
  const made = document.createElement("progress");
  if (doing.total) {
    made.max = doing.total;
    made.value = doing.done;
  }
  made.setAttribute("aria-label", doing.stage);
  return made;
}

const far = (doing) => (doing.total ? `${doing.done} of ${doing.total}` : "");

function facts(run) {
  const sites = run.sites;
  const part = sites.filter((site) => site.status === "ok" && site.heard).length;
  const end = run.state === "running" ? Date.now() : Date.parse(run.last);
  const shown = [
    ["Method", run.variant && run.variant !== "default" ? `${run.method}, ${run.variant}` : run.method],
    ["Sites taking part", `${part} of ${sites.length}`],
    ["Time", run.begun ? duration((end - Date.parse(run.begun)) / 1000) : "–"],
    ["Left the sites", bytes(total(sites, "sent"))],
    ["Went to the sites", bytes(total(sites, "received"))],
    ["Blocked", String(sites.reduce((sum, site) => sum + held(site), 0))],
  ];
  replaced("facts", shown.map(([name, value]) => element("div", [element("dt", name), element("dd", value)])));
}

function stages(run) {
  const ended = run.stages.map((stage) => {
    return element("li", [element("span", "✓", "mark"), element("span", stage.name, "stage"), element("span"), element("span", duration(stage.seconds), "time")]);
  });
  const now = [];
  if (run.state === "running" && run.doing) {
    now.push(element("li", [element("span", "▸", "mark"), element("span", run.doing.stage, "stage"), bar(run.doing), element("span", far(run.doing), "time")], "now"));
  }
  at("no-stage").hidden = ended.length + now.length > 0;
  replaced("stages", [...ended, ...now]);
}

function standing(run, site) {
  if (site.status !== "ok") return ["left the run", "bad-text"];
  if (!site.heard) return ["not heard yet", ""];
  return [run.state === "finished" ? "completed" : "takes part", "good-text"];
}

function sites(run) {
  replaced("sites", run.sites.map((site) => {
    const name = element("th", [site.title || site.name]);
    name.scope = "row";
    if (site.title) name.append(element("small", site.name));
    const [said, look] = standing(run, site);
    const status = element("td", element("span", said, look));
    if (site.status !== "ok") status.append(element("small", site.status));
    const doing = element("td", site.doing ? site.doing.stage : "–");
    if (site.doing && site.doing.total && run.state === "running") doing.append(bar(site.doing));
    const numbers = [bytes(site.sent), bytes(site.received), duration(site.seconds), String(site.orders), String(held(site)), clock(site.heard)];
    return element("tr", [name, status, doing, ...numbers.map((value) => element("td", value, "n"))]);
  }));
}

function blocked(run) {
  at("none-blocked").hidden = run.blocked.length > 0;
  at("some-blocked").hidden = run.blocked.length === 0;
  replaced("blocked", run.blocked.map((each) => {
    return element("tr", [element("td", clock(each.time)), element("td", each.site), element("td", element("code", each.action)), element("td", element("code", each.rule))]);
  }));
}

function ledgers(run) {
  const rows = [["server", run.ledger_lines, run.ledger_head], ...run.sites.map((site) => [site.name, site.ledger_lines, site.ledger_head])];
  replaced("ledgers", rows.map(([party, lines, head]) => {
    const name = element("th", party);
    name.scope = "row";
    return element("tr", [name, element("td", String(lines), "n"), element("td", head ? element("code", head) : "–")]);
  }));
}

function show(run) {
  const name = run.name || "No run yet";
  document.title = `${run.state}: ${name}`;
  at("name").textContent = name;
  at("state").textContent = run.state;
  at("state").className = `badge ${run.state === "not begun" ? "waiting" : run.state}`;
  at("question").textContent = run.question;
  at("fault").textContent = run.fault;
  at("fault").hidden = !run.fault;
  for (const part of [facts, stages, sites, blocked, ledgers]) part(run);
}

let last = null;
const events = new EventSource("events");
events.onmessage = (event) => {
  last = JSON.parse(event.data);
  at("connection").textContent = "live";
  at("connection").className = "";
  show(last);
};
events.onopen = () => {
  at("connection").textContent = "live";
  at("connection").className = "";
};
events.onerror = () => {
  at("connection").textContent = "connection lost; what is shown is old";
  at("connection").className = "lost";
};
setInterval(() => last && last.state === "running" && facts(last), 1000);
