// Better with it, whole without it: a form marked data-live is sent again a moment after it changes, and what it answers takes the place of data-into.
"use strict";

for (const form of document.querySelectorAll("form[data-live]")) {
  const into = document.getElementById(form.dataset.into);
  let waiting = 0;
  let asking = null;

  const ask = async () => {
    asking?.abort();
    asking = new AbortController();
    into.dataset.waits = "";
    try {
      const answer = await fetch(form.dataset.live, {
        method: "POST", body: new URLSearchParams(new FormData(form)), signal: asking.signal, credentials: "same-origin", redirect: "error",
      });
      if (answer.status >= 500) throw new Error("unavailable");
      into.innerHTML = await answer.text();
    } catch (fault) {
      if (fault.name !== "AbortError") into.textContent = "This could not be counted just now. Send the form instead.";
    } finally {
      delete into.dataset.waits;
    }
  };

  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(ask, 600);
  });
  if ("now" in form.dataset) ask();
}

for (const form of document.querySelectorAll("form[data-sure]")) {
  form.addEventListener("submit", (event) => {
    if (!confirm(form.dataset.sure)) event.preventDefault();
  });
}
