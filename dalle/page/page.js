() => {
  // Runs once, before anything is asked: answers that are never lost, keys that work everywhere, a
  // focus that stays, and saving files.
  window.dallePage = {
    save(file) {
      const link = document.createElement('a');
      link.href = file.url;
      link.download = file.orig_name || 'pictures';
      document.body.append(link);
      link.click();
      link.remove();
    },
  };
  const shown = (button) => button && button.offsetParent !== null && !button.disabled;
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      const go = [...document.querySelectorAll('button.go')].find(shown);
      if (go) { event.preventDefault(); go.click(); }
    }
    // In a list of choices, Escape closes the list.
    if (event.key === 'Escape' && !event.target.closest('[role=combobox], [role=listbox]')) {
      const halt = [...document.querySelectorAll('button.halt')].find(shown);
      if (halt) halt.click();
    }
  });

  // Draw and Stop take each other's place, and the focus must not fall out of the page with them.
  let row = null;  // where both stand, while one of them has the focus
  const follow = ({target}) => {
    row = target.closest?.('button.go, button.halt')?.parentElement ?? null;
  };
  document.addEventListener('focusin', follow);
  document.addEventListener('pointerdown', follow);
  new MutationObserver(() => {
    if (row === null || document.activeElement !== document.body) return;
    [...row.querySelectorAll('button.go, button.halt')].find(shown)?.focus();
  }).observe(document.body, {subtree: true, childList: true, attributes: true});

  // When the server says that every event is answered, Gradio's client (6.31) closes the stream of
  // answers, even if it sent another event at that very moment. It has opened no stream for that
  // one, so its answer is never fetched, and the page waits for good. Here such a closing is kept
  // from the client, and the stream goes on with what the server is asked for next.
  const fetched = window.fetch.bind(window);
  const sending = new Set();  // requests that send an event
  const awaited = new Set();  // events that were sent and not answered
  const early = new Set();  // events whose answer overtook the receipt of having sent them
  const received = ({event_id: id}) => {
    if (id && !early.delete(id)) awaited.add(id);
  };
  const answered = ({msg, event_id: id}) => {
    if (msg === 'process_completed' && id && !awaited.delete(id)) early.add(id);
  };
  const send = (input, options) => {
    const response = fetched(input, options);
    const done = response.then((one) => one.clone().json()).then(received).catch(() => {});
    sending.add(done);
    done.then(() => sending.delete(done));
    return done.then(() => response);
  };
  async function* messages(response) {
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    let rest = '';
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const texts = (rest + decoder.decode(part.value, {stream: true})).split('\n\n');
      rest = texts.pop();
      yield* texts;
    }
  }
  async function* answers(response, request) {
    for (let next = response; next !== null;) {
      const open = next;
      next = null;
      for await (const text of messages(open)) {
        const message = JSON.parse(text.replace(/^data:/, ''));
        answered(message);
        if (message.msg === 'close_stream') {
          while (sending.size) await Promise.all(sending);
          if (awaited.size) { next = await fetched(request.clone()); break; }
        }
        yield `${text}\n\n`;
      }
    }
  }
  const receive = async (request) => {
    const response = await fetched(request.clone());
    if (!response.ok) return response;
    const encoder = new TextEncoder();
    const stream = answers(response, request);
    const body = new ReadableStream({
      async pull(controller) {
        const {value, done} = await stream.next();
        if (done) controller.close(); else controller.enqueue(encoder.encode(value));
      },
    });
    return new Response(body, response);
  };
  window.fetch = (input, options) => {
    const {pathname} = new URL(input.url ?? input, location.href);
    if (pathname.endsWith('/queue/join')) return send(input, options);
    if (pathname.endsWith('/queue/data')) return receive(new Request(input, options));
    return fetched(input, options);
  };
}
