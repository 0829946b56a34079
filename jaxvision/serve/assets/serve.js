import { beginCamera } from "/camera.js";
import { above, draw, loaded, withImages } from "/drawing.js";
import { $, ask, counted, fail, make, megabytes, percent, say, took } from "/page.js";
import { beginSamples } from "/samples.js";

let about = null; // what the server is
let photo = null; // the file that was asked last
let answer = null; // what was said of it
let asking = false;
const view = { photograph: null, overlays: [], objects: [], threshold: 0, opacity: 0.6, highlight: null };
const kept = {}; // what a person chose, for the next photograph too
let looked = null; // the overlay of where the network looks, while it is on
let words = null; // the timer of words that are being said

// -- the network ------------------------------------------------------------------------------------

async function begin() {
  for (;;) {
    try {
      about = await ask("/about");
      fail("");
      if (about.ready) break;
      $("name").textContent = about.name;
      document.title = about.name;
      say("The network is being compiled ...", true);
    } catch (error) {
      fail(error.message);
    }
    await new Promise((done) => setTimeout(done, 700));
  }
  say("");
  $("name").textContent = about.name;
  document.title = `${about.name} – jaxvision`;
  $("version").textContent = `jaxvision ${about.version}`;
  const size = about.image_size;
  const sides = size.slice(0, -1).reverse().join(" x ");
  const facts = [
    about.task,
    `${about.network}, ${about.parameters.toLocaleString("en")} parameters`,
    about.classes.length ? counted(about.classes.length, "class", "classes") : "",
    `images of ${sides}, ${size[size.length - 1] === 1 ? "grey" : "in colour"}`,
    about.step === null ? "" : `step ${about.step.toLocaleString("en")}`,
  ];
  $("lead").textContent = facts.filter(Boolean).join(" · ");
  if (about.classes.length) {
    $("classes").hidden = false;
    $("classes").querySelector("summary").textContent = "The classes";
    $("classes").querySelector("p").textContent = about.classes.join(", ");
  }
  if (about.predicts) {
    $("photo").hidden = false;
    const kinds = size.length === 4 ? "A volume, .npy" : "JPEG, PNG, WebP, GIF, TIFF or BMP";
    $("limits").textContent = `${kinds}, up to ${megabytes(about.limit)}.`;
    $("camera").hidden = size.length === 4;
  }
  if (about.samples) beginSamples(about);
}

// -- photographs ------------------------------------------------------------------------------------

async function predict(blob, quietly = false) {
  if (!about || !about.predicts) return;
  if (asking) {
    if (!quietly) say("Still at the last photograph ...", true);
    return;
  }
  fail("");
  if (blob.size > about.limit) {
    fail(`This is larger than ${megabytes(about.limit)}, the limit of an upload.`);
    return;
  }
  asking = true;
  if (!quietly) say("Looking ...", true);
  try {
    const found = await ask("/predict", { method: "POST", body: blob });
    answer = await withImages(found);
    photo = blob;
    looked = null;
    if (kept.looking) looked = await look(kept.lookingFor || "", true);
    show(quietly);
    say(`The network took ${took(answer.seconds)}, at ${answer.seen.join(" x ")} pixels.`);
  } catch (error) {
    say("");
    fail(error.message);
    if ($("continuous").checked) $("continuous").checked = false;
  } finally {
    asking = false;
  }
}

async function look(name, quietly = false) {
  if (!quietly) say("Finding out where it looks ...", true);
  const known = about.looks_for.includes(name) ? name : "";
  const found = await ask(`/look?class=${encodeURIComponent(known)}`, { method: "POST", body: photo });
  const [overlay] = found.shown;
  overlay.picture.image = await loaded(overlay.picture.url);
  if (!quietly) say(overlay.title);
  return overlay;
}

async function lookFor(on, name = "") {
  kept.looking = on;
  kept.lookingFor = name;
  try {
    looked = on ? await look(name) : null;
    if (!on) say("");
  } catch (error) {
    fail(error.message);
  }
  const box = $("looking");
  if (box) box.checked = Boolean(looked);
  for (const row of document.querySelectorAll("#parts button.row[data-class]")) {
    row.setAttribute("aria-pressed", String(Boolean(looked) && kept.lookingFor === row.dataset.class));
  }
  redraw();
}

function redraw() {
  if (!answer || $("seen").hidden) return;
  view.overlays = [];
  for (const part of answer.shown) {
    if (part.kind === "overlay" && kept[`hide ${part.title}`] !== true) {
      view.overlays.push({ image: part.picture.image, grey: part.grey });
    }
    if (part.kind === "words" && part.at !== undefined && part.maps[part.at]) {
      view.overlays.push({ image: part.maps[part.at].image, grey: true });
    }
  }
  if (looked) view.overlays.push({ image: looked.picture.image, grey: true });
  const masks = view.objects.some((part) => above(part, view.threshold).some((item) => item.mask));
  const opacity = $("opacity");
  if (opacity) opacity.disabled = !(masks || view.overlays.length);
  draw($("stage"), view);
}

/** What is said of the last photograph, anew. */
function show(quietly) {
  clearInterval(words);
  const parts = answer.shown;
  const beside = parts.some((part) => part.kind === "pictures");
  $("result").hidden = false;
  document.body.classList.add("answered");
  $("result").classList.toggle("beside", beside);
  $("seen").hidden = beside;
  $("parts").setAttribute("aria-live", quietly ? "off" : "polite");
  view.photograph = answer.photograph;
  view.objects = parts.filter((part) => part.kind === "objects");
  view.highlight = null;
  $("controls").replaceChildren(...controls(parts));
  const drawn = parts.flatMap((part) => DRAWN[part.kind](part));
  $("parts").replaceChildren(...(drawn.length ? drawn : [plain()]));
  describe();
  redraw();
}

function describe() {
  const said = [];
  for (const part of answer.shown) {
    if (part.kind === "bars" && part.rows.length) said.push(`${part.rows[0].name} ${percent(part.rows[0].value)}`);
    if (part.kind === "objects") said.push(above(part, view.threshold).map((item) => item.name).join(", ") || "nothing");
    if (part.kind === "overlay") said.push(part.legend.map((line) => `${line.name} ${line.text}`).join(", "));
    if (part.kind === "words") said.push(part.words.join(" "));
  }
  $("stage").setAttribute("aria-label", `The photograph. ${said.join(". ")}`);
}

/** What a report without parts says: everything but what is for the page. */
function plain() {
  const { shown, photograph, seconds, seen, reduced, ...rest } = answer;
  return make("pre", { class: "plain", text: JSON.stringify(rest, null, 1) });
}

function slider(id, text, value, most, step, changed) {
  const shown = make("output", { for: id, text: value.toFixed(2) });
  const input = make("input", {
    id, type: "range", min: 0, max: most, step, value, autocomplete: "off",
    oninput: () => {
      shown.textContent = Number(input.value).toFixed(2);
      changed(Number(input.value));
    },
  });
  return make("label", {}, text, input, shown);
}

function box(id, text, checked, changed) {
  const input = make("input", { id, type: "checkbox", checked, autocomplete: "off", onchange: () => changed(input.checked) });
  return make("label", {}, input, text);
}

function controls(parts) {
  const found = [];
  const objects = view.objects.find((part) => part.threshold !== null);
  if (objects) {
    view.threshold = kept.threshold ?? objects.threshold;
    found.push(slider("threshold", "Score from", view.threshold, 1, 0.01, (value) => {
      kept.threshold = view.threshold = value;
      fillObjects();
      describe();
      redraw();
    }));
  } else view.threshold = 0;
  for (const part of parts.filter((one) => one.kind === "overlay")) {
    const name = `hide ${part.title}`;
    found.push(box(`show-${part.title}`, part.title, kept[name] !== true, (on) => {
      kept[name] = !on;
      redraw();
    }));
  }
  if (about.looks && !parts.some((part) => part.kind === "pictures")) {
    found.push(box("looking", `${about.looks}: where it looks`, Boolean(looked), (on) => lookFor(on)));
  }
  const laid = parts.some((part) => part.kind === "overlay" || (part.kind === "words" && part.maps.length)
    || (part.kind === "objects" && part.items.some((item) => item.mask))) || about.looks;
  if (laid && !parts.some((part) => part.kind === "pictures")) {
    found.push(slider("opacity", "Opacity", view.opacity, 1, 0.05, (value) => {
      view.opacity = value;
      redraw();
    }));
  }
  return found;
}

// -- parts ------------------------------------------------------------------------------------------

const DRAWN = { bars, overlay: legend, objects, pictures, words: sentence, numbers };

function bars(part) {
  const list = make("ul", { class: "rows" });
  for (const row of part.rows) {
    const filled = make("span");
    filled.style.width = `${100 * row.value}%`;
    const missing = row.found === false;
    const asked = about.looks_for.includes(row.name);
    const inner = [
      make("span", { text: row.name }),
      make("span", { class: "n", text: row.found === null ? percent(row.value) : `${percent(row.value)} ${missing ? "no" : "yes"}` }),
      make("span", { class: "bar", "aria-hidden": "true" }, filled),
    ];
    const given = { class: `row${missing ? " not-found" : ""}` };
    if (asked) {
      Object.assign(given, {
        type: "button", "data-class": row.name, title: `${about.looks} of ${row.name}`,
        "aria-pressed": String(Boolean(looked) && kept.lookingFor === row.name),
        onclick: () => lookFor(!(looked && kept.lookingFor === row.name), row.name),
      });
    }
    list.append(make("li", {}, make(asked ? "button" : "div", given, ...inner)));
  }
  const hint = part.rows.some((row) => about.looks_for.includes(row.name))
    ? [make("p", { class: "soft", text: "Choose a class to see what speaks for it." })] : [];
  return [make("h2", { text: "Classes" }), list, ...hint];
}

function legend(part) {
  const list = make("ul", { class: "rows" });
  for (const line of part.legend) {
    const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = line.colour;
    const row = make("div", { class: "row" },
      make("span", {}, swatch, line.name), make("span", { class: "n", text: line.text }));
    list.append(make("li", {}, row));
  }
  return [make("h2", { text: part.title }), list];
}

function objects(part) {
  part.title = make("h2");
  part.list = make("ul", { class: "rows" });
  fillObjects();
  return [part.title, part.list];
}

function fillObjects() {
  for (const part of view.objects) {
    if (!part.list) continue;
    const scored = part.items.some((item) => item.score !== null);
    const poses = !scored && part.point_names.length;
    const lines = poses ? pointLines(part) : above(part, view.threshold).map(objectLine);
    if (poses) part.title.textContent = `${lines.length} of ${part.point_names.length} key points`;
    else part.title.textContent = counted(lines.length, "object", "objects");
    if (!lines.length) {
      const text = part.items.length ? "Nothing is as sure as that; lower the score." : "Nothing was found.";
      lines.push(make("li", { class: "soft", text }));
    }
    part.list.replaceChildren(...lines);
  }
}

function swatchOf(colour) {
  const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
  swatch.style.background = colour;
  return swatch;
}

function objectLine(item) {
  const on = (there) => () => {
    view.highlight = there ? item : null;
    redraw();
  };
  const row = make("button", {
    type: "button", class: "row", onmouseenter: on(true), onmouseleave: on(false), onfocus: on(true), onblur: on(false),
  }, make("span", {}, swatchOf(item.colour), item.name),
  make("span", { class: "n", text: item.score === null ? "" : item.score.toFixed(2) }));
  return make("li", {}, row);
}

function pointLines(part) {
  const lines = [];
  part.items.forEach((item) => item.points.forEach((point, index) => {
    if (point[2] < view.threshold) return;
    const row = make("div", { class: "row" },
      make("span", {}, swatchOf(part.point_colours[index]), part.point_names[index]),
      make("span", { class: "n", text: point[2].toFixed(2) }));
    lines.push(make("li", {}, row));
  }));
  return lines;
}

function pictures(part) {
  const all = part.pictures.map((one) => make("figure", {},
    make("img", {
      src: one.url, alt: `${one.caption}, ${one.width} x ${one.height} pixels`, width: one.width, height: one.height,
      class: Math.max(one.width, one.height) <= 128 ? "small" : null,
    }),
    make("figcaption", { text: `${one.caption}, ${one.width} x ${one.height}` })));
  return [make("div", { class: "side" }, ...all)];
}

function sentence(part) {
  const looks = part.maps.length > 0;
  let saying = false; // until somebody points at a word
  const sayAll = () => {
    saying = false;
    clearInterval(words);
    spans.forEach((span) => span.classList.remove("unsaid"));
  };
  const spans = part.words.map((word, index) => {
    if (!looks) return make("span", { text: word });
    const at = (place) => () => {
      sayAll();
      part.at = place;
      redraw();
    };
    return make("button", {
      type: "button", text: word, onmouseenter: at(index), onmouseleave: at(undefined),
      onfocus: at(index), onblur: at(undefined), "aria-label": `${word}: where it looked`,
    });
  });
  if (!spans.length) return [make("p", { text: "It says nothing." })];
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches && !$("continuous").checked) {
    spans.forEach((span) => span.classList.add("unsaid"));
    saying = true;
    let next = 0;
    words = setInterval(() => {
      spans[next].classList.remove("unsaid");
      part.at = looks ? next : undefined;
      next += 1;
      if (next === spans.length) {
        clearInterval(words);
        setTimeout(() => {
          if (saying) part.at = undefined;
          redraw();
        }, 700);
      }
      redraw();
    }, looks ? 450 : 160);
  }
  const hint = looks ? [make("p", { class: "soft", text: "Point at a word to see where it looked." })] : [];
  return [make("h2", { text: "Caption" }), make("p", { class: "words" }, ...spans), ...hint];
}

function numbers(part) {
  const list = make("dl", { class: "numbers" });
  for (const [name, text] of part.values) list.append(make("dt", { text: name }), make("dd", { text }));
  return [list];
}

// -- where photographs come from --------------------------------------------------------------------

$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  if ($("file").files.length) predict($("file").files[0]);
  $("file").value = "";
});
let inside = 0;
addEventListener("dragenter", (event) => {
  event.preventDefault();
  inside += 1;
  document.body.classList.add("over");
});
addEventListener("dragleave", () => {
  inside -= 1;
  if (inside <= 0) document.body.classList.remove("over");
});
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  inside = 0;
  document.body.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) predict(file);
  else fail("That is no file; save the picture and drop it from its folder.");
});
addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) predict(file);
});
addEventListener("resize", redraw);

beginCamera(predict);
begin();
