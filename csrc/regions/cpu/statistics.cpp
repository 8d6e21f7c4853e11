// The CPU side of the operators on labelled regions.
#include <tuple>

#include "regions/cpu/problem.h"

namespace pixelkernels::regions {
namespace {

std::tuple<Tensor, Tensor, Tensor> region_stats(Tensor features, Tensor labels, int64_t regions,
                                                bool normalize) {
  const Problem p(features, &labels, regions, true);
  const Input& in = p.in;
  const int64_t blocks = in.batch * in.blocks;
  Tensor shift = p.tables(blocks), sums = p.sum_tables();
  Tensor squares = output(features, {blocks, regions + 1, 8}, ScalarType::Double);
  Tensor counts = output(features, {blocks, regions + 1}, ScalarType::Int);
  Tensor count = output(features, {in.batch, regions}, ScalarType::Long);
  Tensor mean = p.statistics({in.batch, regions, in.channels});
  Tensor variance = p.statistics({in.batch, regions});
  const StatsArgs args{in,
                       normalize,
                       data(shift),
                       data(sums),
                       data(squares),
                       data<int32_t>(counts),
                       data<int64_t>(count),
                       data(mean),
                       data(variance)};
  p.for_blocks([&](int64_t image, int64_t block) { p.run.stats_block(args, image, block); });
  p.for_regions([&](int64_t image, int64_t region) { p.run.stats_merge(args, image, region); });
  return {count, mean, variance};
}

Tensor region_stats_backward(std::optional<Tensor> grad_mean, std::optional<Tensor> grad_variance,
                             Tensor features, Tensor labels, Tensor count, Tensor mean,
                             bool normalize) {
  const Problem p(features, &labels, count.size(1), false);
  Tensor gradient = output_like(features);
  const bool reads = grad_variance.has_value() || normalize;
  Tensor centre = p.pack(data(mean), nullptr);
  Tensor offset = p.pack(optional_data(grad_mean), data<int64_t>(count));
  Tensor scale = p.pack_scale(optional_data(grad_variance), data<int64_t>(count));
  const StatsBackwardArgs args{p.in,         normalize,    view_of(gradient),
                               data(centre), data(offset), reads ? data(scale) : nullptr};
  p.for_blocks([&](int64_t image, int64_t block) { p.run.stats_backward(args, image, block); });
  return gradient;
}

std::tuple<Tensor, Tensor, Tensor, Tensor> region_pull(Tensor features, Tensor labels,
                                                       int64_t regions, double delta,
                                                       int64_t norm) {
  auto [count, mean, variance] = region_stats(features, labels, regions, false);
  const Problem p(features, &labels, regions, true);
  const Input& in = p.in;
  const int64_t blocks = in.batch * in.blocks;
  Tensor centre = p.pack(data(mean), nullptr);
  Tensor sums = p.sum_tables();
  Tensor partial = output(features, {blocks, regions + 1}, ScalarType::Double);
  Tensor pull = p.statistics({in.batch, regions});
  Tensor direction = p.statistics({in.batch, regions, in.channels});
  PullArgs args{};
  args.input = in;
  args.delta = delta;
  args.norm = norm;
  args.mean = data(centre);
  args.sums = data(sums);
  args.pull = data(partial);
  p.for_blocks([&](int64_t image, int64_t block) { p.run.pull_block(args, image, block); });
  const Tensor ones = output(features, {in.batch}, ScalarType::Double);
  std::fill_n(data<double>(ones), in.batch, 1.0);
  p.for_regions([&](int64_t image, int64_t region) {
    p.run.merge_sums(in, data(sums), data<double>(ones), data(direction), image, region);
    double total = 0;
    for (int64_t block = 0; block < in.blocks; ++block)
      total += data<double>(partial)[(image * in.blocks + block) * (regions + 1) + region];
    const int64_t out = image * regions + region;
    if (in.element == Element::kDouble)
      data<double>(pull)[out] = total;
    else
      data<float>(pull)[out] = static_cast<float>(total);
  });
  return {count, mean, pull, direction};
}

Tensor region_pull_backward(std::optional<Tensor> grad_mean, std::optional<Tensor> grad_pull,
                            Tensor features, Tensor labels, Tensor count, Tensor mean,
                            Tensor direction, double delta, int64_t norm) {
  const Problem p(features, &labels, count.size(1), false);
  Tensor gradient = output_like(features);
  Tensor centre = p.pack(data(mean), nullptr);
  Tensor scale = p.pack_scale(optional_data(grad_pull), nullptr);
  Tensor offset = p.pack(optional_data(grad_mean), data<int64_t>(count), data(direction),
                         optional_data(grad_pull));
  PullArgs args{};
  args.input = p.in;
  args.delta = delta;
  args.norm = norm;
  args.mean = data(centre);
  args.gradient = view_of(gradient);
  args.offset = data(offset);
  args.scale = data(scale);
  p.for_blocks([&](int64_t image, int64_t block) { p.run.pull_backward(args, image, block); });
  return gradient;
}

Tensor region_contrast(Tensor features, Tensor labels, Tensor mean, bool normalize) {
  const Problem p(features, &labels, 2, false);
  Tensor scores = p.statistics({p.in.batch, features.size(2), features.size(3)});
  Tensor centre = p.pack(data(mean), nullptr);
  const ContrastArgs args{p.in, normalize, data(centre), data(scores)};
  p.for_blocks([&](int64_t image, int64_t block) { p.run.contrast(args, image, block); });
  return scores;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("region_stats", TORCH_BOX(&region_stats));
  m.impl("region_stats_backward", TORCH_BOX(&region_stats_backward));
  m.impl("region_pull", TORCH_BOX(&region_pull));
  m.impl("region_pull_backward", TORCH_BOX(&region_pull_backward));
  m.impl("region_contrast", TORCH_BOX(&region_contrast));
}

}  // namespace pixelkernels::regions
