() => {
  // Runs once, when the page has loaded: keys that work everywhere, and saving files.
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
    if (event.key === 'Escape') {
      const halt = [...document.querySelectorAll('button.halt')].find(shown);
      if (halt) halt.click();
    }
  });
}
