for (const viewer of document.querySelectorAll("[data-slices]")) {
  const range = viewer.querySelector("input");
  const output = viewer.querySelector("output");
  const slices = viewer.querySelectorAll("[data-slice]");
  if (!range) continue;
  const depth = output.value.split(" of ")[1];
  const show = () => {
    slices.forEach((slice, index) => { slice.hidden = index !== Number(range.value); });
    output.value = `${slices[range.value].dataset.slice} of ${depth}`;
    range.setAttribute("aria-valuetext", `slice ${output.value}`);
  };
  range.addEventListener("input", show);
  show(); // a browser may have restored another position
}
