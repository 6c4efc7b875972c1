// Space pauses and the arrows step, unless the key belongs to what has the focus. A slider that was
// dragged lets go of the focus, so that the arrows are the page's again.
document.addEventListener('keydown', event => {
  const at = event.target, arrows = event.key.startsWith('Arrow');
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (at.closest('select, textarea, [role=combobox], [role=listbox]')) return;
  if (at.closest(arrows ? 'input' : 'button, a')) return;
  const name = {' ': 'pause', ArrowRight: 'step', ArrowLeft: 'back'}[event.key];
  if (!name) return;
  event.preventDefault();
  emitEvent('page-key', name);
});
document.addEventListener('pointerup', () => {
  if (document.activeElement?.type === 'range') document.activeElement.blur();
});

// Photographs may be dropped anywhere, if photographs are streamed.
for (const name of ['dragover', 'dragleave', 'drop']) {
  document.addEventListener(name, event => {
    if (!event.dataTransfer?.types.includes('Files')) return;
    event.preventDefault();
    const uploader = document.querySelector('.q-uploader');
    document.body.classList.toggle('dropping', uploader !== null && name === 'dragover');
    if (!uploader || name !== 'drop') return;
    runMethod(Number(uploader.id.slice(1)), 'addFiles', [event.dataTransfer.files]);
  });
}

// The server says in one attribute what is to be seen of a frame (view.py). It is put on the screen
// when all its pictures have come, so that pictures and words change together. Frames that come
// faster than their pictures are passed over.
const fetched = new Map(), said = {};
let wanted, seen, busy = false;

async function bring(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(url);
  const image = new Image();
  image.src = URL.createObjectURL(await answer.blob());
  await image.decode();
  fetched.set(url, image);
}

async function show() {
  wanted = document.querySelector('[data-view]')?.dataset.view;
  if (busy) return;
  busy = true;
  while (wanted !== seen) {
    const text = wanted, view = JSON.parse(text);
    const urls = new Set(Object.values(view.pictures).map(([url]) => url));
    try {
      await Promise.all([...urls].filter(url => !fetched.has(url)).map(bring));
    } catch {
      await new Promise(later => setTimeout(later, 50));
      continue;
    }
    put(view);
    seen = text;
    for (const [url, image] of fetched) {
      if (urls.has(url)) continue;
      URL.revokeObjectURL(image.src);
      fetched.delete(url);
    }
  }
  busy = false;
}

function put(view) {
  for (const [place, [url, alt]] of Object.entries(view.pictures)) {
    const img = document.querySelector(`img[data-picture="${place}"]`);
    Object.assign(img, {src: fetched.get(url).src, alt});
    img.dataset.shown = url;
  }
  for (const [place, html] of Object.entries(view.texts)) {
    if (said[place] === html) continue;
    document.querySelector(`[data-text="${place}"]`).innerHTML = said[place] = html;
  }
  for (const control of document.querySelectorAll('[data-control]')) {
    const pending = view.pending.includes(control.dataset.control);
    control.classList.toggle('pending', pending);
    control.setAttribute('aria-busy', pending);
  }
  document.querySelectorAll('.thumb').forEach((thumb, number) => {
    const now = number === view.stage;
    thumb.classList.toggle('ahead', view.stepping && number > view.stage);
    if (now === (thumb.getAttribute('aria-current') === 'step')) return;
    thumb.setAttribute('aria-current', now ? 'step' : 'false');
    if (!now) return;  // where the small pictures do not fit side by side, this one is kept in sight
    const strip = thumb.parentElement;
    strip.scrollTo({left: thumb.offsetLeft - (strip.clientWidth - thumb.clientWidth) / 2});
  });
}

new MutationObserver(show).observe(
  document.documentElement, {subtree: true, childList: true, attributeFilter: ['data-view']});
