const colours = JSON.parse(document.getElementById("volume-colours").textContent);
const parts = (channel) => [0, ...colours.map((hex) => parseInt(hex.slice(1 + 2 * channel, 3 + 2 * channel), 16))];
const lookup = { R: parts(0), G: parts(1), B: parts(2), A: [0, ...colours.map(() => 255)], I: [0, ...colours.map((_, i) => i + 1)], labels: ["", ...colours.map((_, i) => String(i + 1))] };

async function open(place) {
  const views = [];
  for (const panel of place.querySelectorAll("[data-panel]")) {
    const view = new niivue.Niivue({ backColor: [0, 0, 0, 1], show3Dcrosshair: true, crosshairWidth: 0.3, multiplanarShowRender: niivue.SHOW_RENDER?.ALWAYS ?? 1, isNearestInterpolation: true, isRadiologicalConvention: true, loadingText: "", dragAndDropEnabled: false, logLevel: "error" });
    await view.attachToCanvas(panel.querySelector("canvas"));
    for (const layer of panel.querySelectorAll("[data-layer]")) {
      const volume = await niivue.NVImage.loadFromBase64({ name: `${layer.dataset.layer}.nii.gz`, base64: layer.textContent.trim() });
      view.addVolume(volume);
      if (layer.dataset.kind === "classes") {
        volume.setColormapLabel(lookup);
        view.setOpacity(view.volumes.length - 1, 0.5);
      }
    }
    view.updateGLVolume();
    view.setSliceType(view.sliceTypeMultiplanar);
    views.push(view);
  }
  for (const view of views) {
    view.broadcastTo(views.filter((other) => other !== view), { "2d": true, "3d": true });
  }
  const overlay = place.querySelector("input[type=range]");
  overlay?.addEventListener("input", () => {
    for (const view of views) if (view.volumes.length > 1) view.setOpacity(1, Number(overlay.value));
  });
  place.dataset.open = "yes";
}

for (const place of document.querySelectorAll("[data-volumes]")) {
  const button = place.querySelector("button");
  button.hidden = false;
  button.addEventListener("click", async () => {
    button.hidden = true;
    place.querySelector("[data-panels]").hidden = false;
    try {
      await open(place);
    } catch (error) {
      place.dataset.open = "no";
      place.querySelector("[data-panels]").hidden = true;
      place.querySelector("[data-refused]").textContent = "This browser has no WebGL 2: the slices above show the same.";
    }
  });
}
