// New images of a network that makes them: a form, and images as they come, one after another.

import { $, ask, fail, make, say, took } from "/page.js";

let drawing = 0; // counts requests for samples; a newer one ends those before

export function beginSamples(about) {
  $("samples").hidden = false;
  const form = $("ask");
  const number = (name, value, least, most, step) => make("label", {}, name,
    make("input", { type: "number", name, value, min: least, max: most, step, required: true }));
  form.append(number("count", 16, 1, about.most_samples, 1), number("seed", 0, 0, 2147483647, 1));
  for (const [name, control] of Object.entries(about.samples)) {
    if (name === "labels") {
      const options = control.choices.map((one) => make("option", { value: one, text: one }));
      form.append(make("label", {}, "class", make("select", { name }, make("option", { value: "", text: "any" }), ...options)));
    } else if (control.choices.length) {
      const options = control.choices.map((one) => make("option", { value: one, text: one, selected: one === control.default }));
      form.append(make("label", {}, name, make("select", { name }, ...options)));
    } else form.append(number(name, control.default, control.least, control.most, control.step));
  }
  form.append(make("button", { type: "submit", class: "main", text: "Make images" }),
    make("button", { type: "button", text: "Next seed", onclick: () => {
      form.elements.seed.value = Number(form.elements.seed.value) + 1;
      sample(about);
    } }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sample(about);
  });
}

async function sample(about) {
  const form = $("ask");
  if (!form.reportValidity()) return;
  drawing += 1;
  const own = drawing;
  const asked = { seed: Number(form.elements.seed.value), count: 1 };
  for (const [name, control] of Object.entries(about.samples)) {
    const value = form.elements[name].value;
    if (name === "labels") {
      if (value) asked.labels = [value];
    } else asked[name] = control.choices.length ? value : Number(value);
  }
  const count = Number(form.elements.count.value);
  fail("");
  $("made").replaceChildren();
  let seconds = 0;
  try {
    for (let first = 0; first < count; first += 1) {
      say(`Image ${first + 1} of ${count} ...`, true);
      const found = await ask("/sample", {
        method: "POST", body: JSON.stringify({ ...asked, first }), headers: { "Content-Type": "application/json" },
      });
      if (own !== drawing) return;
      seconds += found.seconds;
      for (const one of found.images) {
        const side = Math.max(one.width, one.height);
        const kind = side <= 64 ? "small" : side >= 200 ? "large" : null;
        $("made").append(make("figure", {}, make("img", {
          src: one.url, width: one.width, height: one.height, class: kind,
          alt: `image ${first + 1} of seed ${asked.seed}${asked.labels ? `, ${asked.labels[0]}` : ""}`,
        })));
      }
    }
    say(`${count} image${count === 1 ? "" : "s"} in ${took(seconds)}.`);
  } catch (error) {
    if (own !== drawing) return;
    say("");
    fail(error.message);
  }
}
