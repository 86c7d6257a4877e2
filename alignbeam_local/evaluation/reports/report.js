const filters = [...document.querySelectorAll("select[data-field]")];
const samples = [...document.querySelectorAll("article")];
const show = () => {
  for (const sample of samples) {
    sample.hidden = filters.some((f) => f.value && sample.dataset[f.dataset.field] !== f.value);
  }
  document.querySelector("#shown").textContent = samples.filter((sample) => !sample.hidden).length;
};
filters.forEach((filter) => filter.addEventListener("change", show));
show();
