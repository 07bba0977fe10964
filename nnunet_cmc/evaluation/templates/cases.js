"use strict";
const root = document.documentElement;
const form = document.querySelector(".choices"), list = document.querySelector(".cases");
const cases = [...list.children].map(element => ({ element, ...JSON.parse(element.dataset.case) }));
const large = document.getElementById("large"), command = document.getElementById("command");
const WIDTH = 190; // of a thumbnail in px, as far as the window has room

// Sort and filter the cases, by name, a facet or a number; those without the number come last.
function arrange() {
  const key = form.key?.value ?? "", sign = form.descending.checked ? -1 : 1;
  const isNumber = key !== "" && !(key in cases[0].facets);
  const ends = isNumber ? [form.least.value, form.most.value] : [];
  const value = entry => key === "" ? cases.indexOf(entry) : isNumber ? entry.numbers[key] : entry.facets[key];
  const facets = [...form.querySelectorAll("[data-facet]")].filter(select => select.value);
  const shown = cases.filter(entry => {
    return facets.every(select => entry.facets[select.dataset.facet] === select.value)
      && (!ends.some(Boolean) || value(entry) !== null)
      && (!ends[0] || value(entry) >= +ends[0]) && (!ends[1] || value(entry) <= +ends[1]);
  });
  const order = (a, b) => sign * ((a > b) - (a < b));
  shown.sort((a, b) => (value(a) === null) - (value(b) === null) || order(value(a), value(b)));
  for (const label of form.querySelectorAll(".range")) label.hidden = !isNumber;
  list.replaceChildren(...shown.map(entry => entry.element));
  form.querySelector("output").value = `${shown.length} of ${cases.length} cases`;
}

// Show as many slices of each case as fill its lines, and those that show all classes in any case. A window wider than
// all of them is left empty on the right.
function fit() {
  const columns = Math.max(Math.floor((list.clientWidth + 4) / (WIDTH + 4)), 2);
  root.style.setProperty("--columns", columns);
  for (const { element } of cases) {
    const places = Math.ceil(element.dataset.needed / columns) * columns;
    for (const slice of element.querySelectorAll(".slice")) slice.hidden = slice.dataset.rank >= places;
  }
}

// Apply the choices of scan, window and layers.
function paint() {
  root.dataset.labels = form.labels.checked ? "shown" : "hidden";
  root.dataset.show = form.show?.value ?? "classes";
  root.style.setProperty("--window", `url(#${form.window?.value})`);
  for (const kind of document.querySelectorAll(".legend .kind")) kind.hidden = root.dataset.show !== "errors";
  if (!form.scan) return;
  for (const slice of document.querySelectorAll(".slice")) {
    const scans = [...slice.querySelectorAll(".scan")];
    const chosen = scans.find(scan => scan.dataset.scan === form.scan.value) ?? scans[0];
    for (const scan of scans) scan.hidden = scan !== chosen;
  }
}

// Show a slice large; arrow keys go to its neighbours in the row, and to the same slice in the rows above and below.
let current;
function enlarge(slice) {
  if (!slice) return;
  current = slice;
  const copy = document.createElement("div"), own = slice.closest(".case");
  copy.className = "slice";
  copy.style = `${slice.getAttribute("style")}; --ratio: ${own.style.getPropertyValue("--ratio")}`;
  copy.append(...slice.cloneNode(true).children);
  large.querySelector(".frame").replaceChildren(copy);
  large.querySelector("span").textContent = `${own.dataset.name}, ${rowTitle(slice)}, ${slice.title}`;
  if (!large.open) large.showModal();
}
const rowTitle = slice => slice.closest(".slices").previousElementSibling.querySelector("b").textContent;
function neighbour(step) {
  const slices = [...current.parentElement.children].filter(slice => !slice.hidden);
  return slices[slices.indexOf(current) + step];
}
function inRow(step) {
  const rows = [...list.querySelectorAll(".slices")], row = rows[rows.indexOf(current.parentElement) + step];
  const same = row?.children[[...current.parentElement.children].indexOf(current)];
  return same && !same.hidden ? same : row?.querySelector(".slice:not([hidden])");
}
large.addEventListener("keydown", event => {
  const moves = {
    ArrowLeft: [neighbour, -1], ArrowRight: [neighbour, 1], ArrowUp: [inRow, -1], ArrowDown: [inRow, 1],
  };
  const move = moves[event.key];
  if (!move) return;
  event.preventDefault();
  enlarge(move[0](move[1]));
});
large.addEventListener("click", event => {
  const step = event.target.dataset?.step;
  if (step) enlarge(neighbour(+step));
  else if (event.target === large) large.close();
});

// Open a case in a viewer: through the server of open_case.py, or by a command to copy where the page is a file.
async function open(name) {
  if (location.protocol !== "file:") {
    const answer = await fetch(`open/${encodeURIComponent(name)}`, { method: "POST" }).catch(error => error);
    if (!answer.ok) say("The case was not opened.", answer.text ? await answer.text() : `${answer}`);
    return;
  }
  const path = decodeURIComponent(location.pathname).replace(/[^/]*$/, "open_case.py"), drive = /^\/(?=[A-Za-z]:)/;
  // quoted for the shell: names of cases are names of files, which may be anything
  const quote = word => drive.test(path) ? `"${word}"` : `'${word.replaceAll("'", "'\\''")}'`;
  const typed = `python ${quote(path.replace(drive, ""))} ${quote(name)}`;
  const title = "This command opens the case in ITK-SNAP, 3D Slicer or napari. "
    + "Without the name of the case it shows this page with links that do.";
  say(title, typed);
  navigator.clipboard?.writeText(typed).then(() => say(`${title} It is in the clipboard.`, typed), () => {});
}
function say(title, text) {
  command.querySelector("p").textContent = title;
  command.querySelector("code").textContent = text;
  if (!command.open) command.showModal();
}

list.addEventListener("click", event => {
  const slice = event.target.closest(".slice"), opener = event.target.closest(".open");
  if (slice) enlarge(slice);
  if (opener) open(opener.closest(".case").dataset.name);
});
form.addEventListener("input", () => { arrange(); paint(); });
form.addEventListener("submit", event => event.preventDefault());
new ResizeObserver(fit).observe(list);
arrange();
paint();
fit();
