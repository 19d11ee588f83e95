// Sends what the form says and shows what came back. All text goes in by textContent: nothing that the model or
// the server says becomes HTML.

const LIMIT_HEADER = /ratelimit|^retry-after|^x-should-retry$/;
const MOST_ANSWERS = 20;

const at = (id) => document.getElementById(id);
let sent = 0;

at("key").addEventListener("change", showOtherKey);
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const door = at("door").value;
  send(door, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(bodyFor(door)) });
});
at("usage").addEventListener("click", () => send("/usage"));
for (const link of document.querySelectorAll("[data-get]")) {
  link.addEventListener("click", (event) => {
    event.preventDefault(); // The browser's own request would carry no key.
    send(link.dataset.get);
    at("try").scrollIntoView();
  });
}
for (const link of document.querySelectorAll("[data-door]")) {
  link.addEventListener("click", () => { at("door").value = link.dataset.door; });
}
showOtherKey(); // A browser that comes back to the page may have kept the choice.

function showOtherKey() {
  at("other").hidden = at("key").value !== "";
}

function bodyFor(door) {
  const prompt = at("prompt").value;
  const common = { max_tokens: at("max-tokens").valueAsNumber, stream: at("stream").checked };
  if (door === "/predict") return { prompt, ...common };
  return { model: at("model").value, messages: [{ role: "user", content: prompt }], ...common };
}

async function send(path, options = {}) {
  const number = ++sent;
  const card = newCard(number, path);
  const leave = new AbortController();
  const began = performance.now();
  const seconds = () => `${((performance.now() - began) / 1000).toFixed(1)} s`;
  const end = (kind, outcome) => {
    card.root.className = kind;
    card.outcome.textContent = outcome;
    if (document.activeElement === card.stop) card.root.focus();
    card.stop.remove();
    at("status").textContent = `Answer ${number}: ${outcome}`;
  };
  card.stop.addEventListener("click", () => leave.abort());
  try {
    const key = at("key").value || at("other-key").value;
    const headers = { ...options.headers, Authorization: `Bearer ${key}` };
    const response = await fetch(path, { ...options, headers, cache: "no-store", signal: leave.signal });
    const outcome = `${response.status} ${response.statusText}`.trim();
    card.outcome.textContent = outcome;
    showHeaders(card, response.headers);
    if (/^text\/event-stream/.test(response.headers.get("Content-Type"))) {
      const failed = await showStream(card, response);
      end(failed ? "bad" : "good", `${outcome}, ${failed ? "and then it failed" : "all pieces"} in ${seconds()}`);
    } else {
      showBody(card, await response.text(), response.ok);
      end(response.ok ? "good" : "bad", `${outcome} in ${seconds()}`);
    }
  } catch (error) {
    end("bad", error.name === "AbortError" ? `stopped by you after ${seconds()}` : `broke off: ${error.message}`);
  }
}

function newCard(number, path) {
  const root = at("answer").content.firstElementChild.cloneNode(true);
  const part = (name) => root.querySelector(`.${name}`);
  part("number").textContent = `${number}.`;
  part("what").textContent = path;
  part("stop").setAttribute("aria-label", `Stop ${number}`);
  at("answers").prepend(root);
  while (at("answers").childElementCount > MOST_ANSWERS) at("answers").lastElementChild.remove();
  return { root, outcome: part("outcome"), stop: part("stop"), said: part("said"), headers: part("headers"), body: part("body") };
}

function showHeaders(card, headers) {
  for (const [name, value] of headers) {
    if (!LIMIT_HEADER.test(name)) continue;
    const row = card.headers.tBodies[0].insertRow();
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = name;
    row.append(head);
    row.insertCell().textContent = value;
    card.headers.hidden = false;
  }
}

function showBody(card, text, ok) {
  const body = parsed(text);
  card.said.textContent = saidIn(body) ?? body?.error?.message ?? leftIn(body) ?? "";
  card.body.textContent = body === undefined ? text : JSON.stringify(body, null, 2);
  card.body.parentElement.hidden = false;
  card.body.parentElement.open = !ok || !card.said.textContent;
}

// Reads server-sent events. Returns whether the server said that the answer failed.
async function showStream(card, response) {
  card.body.parentElement.hidden = false;
  let unread = "";
  let failed = false;
  for await (const text of textOf(response.body)) {
    card.body.append(text);
    const events = (unread + text).split("\n\n");
    unread = events.pop();
    for (const event of events) {
      const data = parsed(event.slice(event.indexOf("data: ") + "data: ".length));
      failed ||= data?.type === "error";
      card.said.append(saidIn(data) ?? data?.error?.message ?? "");
    }
  }
  return failed;
}

async function* textOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
}

// The text in an answer or in a piece of one: the demo's own, OpenAI's whole and streamed, Anthropic's whole and streamed.
function saidIn(body) {
  const choice = body?.choices?.[0];
  return body?.text ?? choice?.message?.content ?? choice?.delta?.content ?? body?.content?.[0]?.text ?? body?.delta?.text;
}

// What /usage says, a line for each limit that counts something.
function leftIn(body) {
  return body?.limits?.filter((limit) => limit.used !== null).map((limit) => {
    const models = limit.model ? `, models ${limit.model}` : "";
    const { budget } = limit;
    if (!budget) return `${limit.name}${models}: ${limit.used} of ${limit.burst} used, ${limit.remaining} left`;
    const renewed = budget.resets ? `; renewed at ${budget.resets} (${budget.zone})` : "";
    return `${limit.name}${models}: ${budget.spent} of ${budget.limit} ${budget.unit} spent, ` +
      `${budget.reserved} reserved, ${budget.left} left${renewed}`;
  }).join("\n");
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // Such as [DONE].
  }
}
