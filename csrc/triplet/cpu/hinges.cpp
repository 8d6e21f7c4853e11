// The CPU side of the triplet hinges and of their gradient.
#include <cmath>
#include <tuple>

#include "triplet/cpu/problem.h"

namespace pixelkernels::triplet {
namespace {

std::tuple<Tensor, Tensor> triplet_hinges(Tensor features, Tensor sets, double margin, bool squared,
                                          double eps) {
  check_indices(features, sets);
  const Element element = element_of(features);
  const Kernels& run = kernels()[element];
  const int64_t images = sets.size(0), hinges = sets.size(1) - 2, all = sets.size(2);
  const int64_t blocks = (all + kRowBlock - 1) / kRowBlock;
  const ScalarType type = accumulate_type(element);
  Tensor result = output(features, {images, hinges, all}, type);
  Tensor distances = output(features, {images, 2 * hinges, all}, type);
  with_value(element, [&](auto zero) {
    using A = decltype(zero);
    // rows [begin, end) of an image, whose squared distances are the sums of `parts` partial
    // results
    const auto finish = [&](const Rows& rows, int64_t begin, int64_t end, const A* sums,
                            int64_t parts) {
      A* distance = data<A>(distances) + rows.image * rows.pairs * all;
      A* hinge = data<A>(result) + rows.image * hinges * all;
      for (int64_t r = begin; r < end; ++r) {
        bool there = true;
        for (int set = 0; set < rows.sets; ++set) there = there && rows.listed[set * all + r] >= 0;
        for (int p = 0; p < rows.pairs; ++p) {
          double sum = 0;
          for (int64_t part = 0; there && part < parts; ++part)
            sum += sums[(part * rows.pairs + p) * all + r];
          distance[p * all + r] = static_cast<A>(squared ? sum : std::sqrt(sum));
        }
        for (int64_t h = 0; h < hinges; ++h) {
          const A* own = distance + 2 * h * all + r;
          const A over = own[0] - own[all] + static_cast<A>(margin);
          // NaN propagates
          hinge[h * all + r] = !there || over < 0 ? A(0) : over;
        }
      }
    };
    if (side_by_side(view_of(features))) {
      const int64_t work = sets.size(1) * features.size(1) * kRowBlock;
      parallel(images * blocks, work, [&](int64_t i) {
        const Rows rows = rows_of(features, sets, i / blocks, squared, eps);
        const int64_t begin = i % blocks * kRowBlock;
        const int64_t end = std::min(begin + kRowBlock, all);
        A* sums = data<A>(distances) + rows.image * rows.pairs * all;
        run.distances_by_pixel(rows, begin, end, sums);
        finish(rows, begin, end, sums, 1);
      });
      return;
    }
    for_images(features, [&](int64_t b) {
      Rows rows = rows_of(features, sets, b, squared, eps);
      const std::vector<int64_t> offset = offsets_of(rows);
      rows.offset = offset.data();
      const int64_t each = rows.pairs * all, groups = groups_of(rows);
      std::vector<A> sums(groups * each, A(0));
      for_groups(rows, [&](int64_t group, int64_t begin, int64_t end) {
        std::vector<A> scratch(rows.sets * all);
        run.distances(rows, begin, end, sums.data() + group * each, scratch.data());
      });
      parallel(blocks, groups * rows.pairs * kRowBlock, [&](int64_t i) {
        const int64_t begin = i * kRowBlock, end = std::min(begin + kRowBlock, all);
        finish(rows, begin, end, sums.data(), groups);
      });
    });
  });
  return {result, distances};
}

Tensor triplet_hinges_backward(Tensor grad_hinges, Tensor features, Tensor sets, Tensor distances,
                               double margin, bool squared, double eps) {
  check_indices(features, sets);
  const Element element = element_of(features);
  const Kernels& run = kernels()[element];
  const int64_t hinges = sets.size(1) - 2;
  Tensor gradient = output_like(features);
  const View view = view_of(gradient);
  const bool by_pixel = side_by_side(view_of(features)) && side_by_side(view);
  with_value(element, [&](auto zero) {
    using A = decltype(zero);
    for_images(features, [&](int64_t b) {
      const int64_t channels = std::max<int64_t>(features.size(1), 1);
      const int64_t together =
          by_pixel ? std::max<int64_t>(kPageValues / channels, 1) : kPagePixels;
      Rows rows = rows_of(features, sets, b, squared, eps);
      const Entries entries(rows, together);
      entries.enter(rows, together);
      const std::vector<int64_t> offset = by_pixel ? std::vector<int64_t>() : offsets_of(rows);
      rows.offset = offset.data();
      const A* distance = data<A>(distances) + b * rows.pairs * rows.rows;
      const A* grad = data<A>(grad_hinges) + b * hinges * rows.rows;
      std::vector<A> factor(rows.pairs * rows.rows);
      for (int p = 0; p < rows.pairs; ++p)
        for (int64_t r = 0; r < rows.rows; ++r) {
          const A* own = distance + p / 2 * 2 * rows.rows + r;
          const bool active = own[0] - own[rows.rows] + static_cast<A>(margin) >= 0;
          const A mine = p % 2 ? own[rows.rows] : own[0];
          const A rise = squared ? A(2) : mine == 0 ? A(0) : 1 / mine;
          const A slope = active ? grad[p / 2 * rows.rows + r] : A(0);
          factor[p * rows.rows + r] = p % 2 ? -slope * rise : slope * rise;
        }
      const Gradient g{rows, factor.data(), view, past_caches(gradient)};
      if (by_pixel) {
        const int64_t page = rows.page_pixels * rows.channels;
        parallel((entries.pages() + kPageBlock - 1) / kPageBlock, kPageBlock * page,
                 [&](int64_t i) {
                   const int64_t begin = i * kPageBlock;
                   const int64_t end = std::min(begin + kPageBlock, entries.pages());
                   std::vector<A> scratch(page);
                   run.gradient_by_pixel(g, begin, end, scratch.data());
                 });
        return;
      }
      for_groups(rows, [&](int64_t, int64_t begin, int64_t end) {
        std::vector<A> scratch(2 * rows.sets * rows.rows + kPagePixels);
        run.gradient(g, begin, end, scratch.data());
      });
    });
  });
  return gradient;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("triplet_hinges", TORCH_BOX(&triplet_hinges));
  m.impl("triplet_hinges_backward", TORCH_BOX(&triplet_hinges_backward));
}

}  // namespace pixelkernels::triplet
