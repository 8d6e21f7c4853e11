// The CPU side of the contrast of anchors with a bank.
#include <limits>
#include <tuple>

#include "similarity/cpu/problem.h"

namespace pixelkernels::similarity {
namespace {

// [N, D] as an image of N pixels.
View rows_of_matrix(const Tensor& matrix) {
  return {matrix.data_ptr(), 0, matrix.stride(1), 0, matrix.stride(0), matrix.size(0)};
}

Contrast contrast_of(const Tensor& anchors, const Tensor& bank, const Tensor& ranges,
                     const Tensor& valid, double scale, bool negatives) {
  STD_TORCH_CHECK(bank.size(0) <= std::numeric_limits<int32_t>::max(),
                  "pixelkernels: a bank of at most 2^31 - 1 entries");
  Contrast c{};
  c.element = element_of(anchors);
  c.depth = Depth(anchors.size(1));
  c.all_anchors = anchors.size(0);
  c.anchors = data<int64_t>(valid)[0];
  c.entries = data<int64_t>(valid)[1];
  c.start = data<int64_t>(ranges);
  c.end = c.start + c.all_anchors;
  c.own = c.end + c.all_anchors;
  c.scale = scale;
  c.negatives = negatives;
  c.points.element = c.element;
  c.points.depth = c.depth;
  return c;
}

std::tuple<Tensor, Tensor, Tensor> contrast_pass(Tensor anchors, Tensor bank, Tensor order,
                                                 Tensor ranges, Tensor valid,
                                                 std::optional<Tensor> log_sum, double scale,
                                                 bool negatives, bool gradient, int64_t step) {
  Contrast c = contrast_of(anchors, bank, ranges, valid, scale, negatives);
  const int64_t parts = std::max<int64_t>((bank.size(0) + step - 1) / step, 1);
  const ScalarType type = accumulate_type(c.element);
  Tensor first = output(anchors, {parts, c.all_anchors}, type);
  Tensor second = output(anchors, {parts, c.all_anchors}, type);
  Tensor rows = gradient ? output(anchors, {parts, c.depth.channels, c.all_anchors}, type)
                         : output(anchors, {0}, type);
  const int64_t blocks = blocks_of(c.anchors);
  if (blocks == 0) return {first, second, rows};
  const Kernels& run = kernels()[c.element];
  c.queries = rows_of_matrix(anchors);
  c.points.features = rows_of_matrix(bank);
  c.points.order = data<int64_t>(order);
  c.gradient = gradient;
  c.log_sum = log_sum ? log_sum->data_ptr() : nullptr;
  const BlockGroups groups(blocks);
  c.blocks_at_once = groups.each;
  c.step = step;
  c.first = first.data_ptr();
  c.second = second.data_ptr();
  c.rows = rows.data_ptr();
  with_value(c.element, [&](auto zero) {
    using A = decltype(zero);
    const Workspace packed(blocks * kPixelBlock * c.depth.padded() * sizeof(A));
    c.packed = packed.data();
    parallel(blocks, kPixelBlock * (c.depth.channels + 1),
             [&](int64_t block) { run.pack_anchors(c, block); });
    const int64_t bytes = run.contrast_pass_scratch(c);
    parallel_ranges(groups.count * parts, 1, [&](int64_t begin, int64_t end) {
      const Workspace scratch(bytes);
      for (int64_t i = begin; i < end; ++i)
        run.contrast_pass(c, i / parts * c.blocks_at_once, i % parts, scratch.data());
    });
  });
  return {first, second, rows};
}

Tensor contrast_bank_gradient(Tensor anchors, Tensor bank, Tensor order, Tensor ranges,
                              Tensor valid, Tensor log_sum, Tensor weights, double scale,
                              bool negatives) {
  Contrast c = contrast_of(anchors, bank, ranges, valid, scale, negatives);
  Tensor grad_bank = output_like(bank);
  const int64_t entries = bank.size(0);
  if (entries == 0) return grad_bank;
  const Kernels& run = kernels()[c.element];
  std::vector<int32_t> position(entries, -1);
  for (int64_t p = 0; p < c.entries; ++p)
    position[data<int64_t>(order)[p]] = static_cast<int32_t>(p);
  std::vector<int64_t> in_order(c.anchors);
  for (int64_t i = 0; i < c.anchors; ++i) in_order[i] = i;
  c.position = position.data();
  c.queries = rows_of_matrix(bank);
  c.grad_bank = rows_of_matrix(grad_bank);
  c.log_sum = log_sum.data_ptr();
  c.weights = weights.data_ptr();
  c.points.features = rows_of_matrix(anchors);
  c.points.order = in_order.data();
  c.points.count = c.anchors;
  with_value(c.element, [&](auto zero) {
    using A = decltype(zero);
    const PackedPoints<A> packed(c.points, true);
    const int64_t bytes = run.gradient_scratch(c.depth);
    parallel_ranges(blocks_of(entries), 1, [&](int64_t begin, int64_t end) {
      const Workspace scratch(bytes);
      for (int64_t block = begin; block < end; ++block)
        run.contrast_gradient(c, block, scratch.data());
    });
  });
  return grad_bank;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("contrast_pass", TORCH_BOX(&contrast_pass));
  m.impl("contrast_bank_gradient", TORCH_BOX(&contrast_bank_gradient));
}

}  // namespace pixelkernels::similarity
