// Search in pages opened from a folder: browsers refuse `new Worker` for file:// addresses, so that the script of the
// worker runs in a hidden frame instead, with the same messages both ways.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      const waiting = [];
      let open = null;
      this.onmessage = null;
      this.postMessage = (data) => (open ? open(data) : waiting.push(data));
      this.terminate = () => frame.remove();
      frame.hidden = true;
      frame.title = "Search";
      document.body.append(frame);
      const inside = frame.contentWindow;
      const load = (path, after) => {
        const script = inside.document.createElement("script");
        script.src = new URL(path, document.baseURI);
        script.onload = after.done;
        script.onerror = after.failed;
        inside.document.head.append(script);
      };
      inside.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      inside.importScripts = (...paths) =>
        paths.reduce(
          (before, path) => before.then(() => new Promise((done, failed) => load(path, { done, failed }))),
          Promise.resolve(),
        );
      load(address, {
        done: () => {
          open = (data) => inside.dispatchEvent(new inside.MessageEvent("message", { data }));
          waiting.splice(0).forEach(open);
        },
        failed: () => this.dispatchEvent(new Event("error")),
      });
    }
  };
}
