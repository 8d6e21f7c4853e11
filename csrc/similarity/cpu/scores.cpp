// The CPU side of the similarity operators, forward.
#include <tuple>

#include "similarity/cpu/problem.h"

namespace pixelkernels::similarity {
namespace {

void score(const Matching& m, const Kernels& run) {
  constexpr int64_t kMinTasks = 32;  // at least, so that all threads have work
  const int64_t most = m.points.count <= kMR ? kMaxInPlacePixels / kPixelBlock : 1;
  const int64_t blocks = blocks_of(m.pixels);
  const int64_t each = std::clamp<int64_t>(blocks / kMinTasks, 1, most) * kPixelBlock;
  const int64_t pieces = (m.pixels + each - 1) / each, bytes = run.scores_scratch(m);
  parallel_ranges(pieces, 1, [&](int64_t begin, int64_t end) {
    const Workspace scratch(bytes);
    for (int64_t i = begin * each; i < end * each && i < m.pixels; i += each)
      run.scores(m, i, std::min(each, m.pixels - i), scratch.data());
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> matching_scores(
    Tensor query, Tensor reference, Tensor order, Tensor offsets, std::optional<Tensor> values,
    Tensor scale, Tensor shift, int64_t metric, int64_t transform, int64_t reduce, int64_t k) {
  const Options options = Options::of(scale, shift, metric, transform, reduce, k);
  const int64_t images = query.size(0), height = query.size(2), width = query.size(3);
  const int64_t classes = offsets.size(1) - 1;
  const bool selects = options.reduce == Reduce::kMax || options.reduce == Reduce::kMin ||
                       options.reduce == Reduce::kTopK;
  const int64_t edges = options.reduce == Reduce::kTopK      ? classes
                        : options.reduce == Reduce::kSoftmax ? 1
                                                             : 0;
  const ScalarType type = accumulate_type(element_of(query));
  Tensor scores = output(query, {images, classes, height, width}, type);
  Tensor labels = output(query, {images, height, width}, ScalarType::Long);
  Tensor edge = output(query, {images, edges, height, width}, type);
  Tensor argbest = output(query, {images, selects ? classes : 0, height, width}, ScalarType::Int);
  for (int64_t image = 0; image < images; ++image) {
    const Reference points(reference, image, at<int64_t>(order, image), at<int64_t>(offsets, image),
                           classes, options, nullptr, values ? at(*values, image) : nullptr, false);
    Matching m = points.matching(query);
    m.scores = at(scores, image);
    m.labels = at<int64_t>(labels, image);
    m.edge = at(edge, image);
    m.argbest = at<int32_t>(argbest, image);
    score(m, points.run);
  }
  return {scores, labels, edge, argbest};
}

std::tuple<Tensor, Tensor> prior_scores(Tensor query, Tensor support, Tensor weights, double eps) {
  const Options options{Metric::kPrior, Transform::kIdentity, Reduce::kMax, 0, 1, 0, eps};
  const int64_t images = query.size(0), height = query.size(2), width = query.size(3);
  const int64_t pixels = height * width, positions = support.size(2) * support.size(3);
  const ScalarType type = accumulate_type(element_of(query));
  Tensor scores = output(query, {images, height, width}, type);
  Tensor argbest = output(query, {images, height, width}, ScalarType::Int);
  std::vector<int64_t> order(positions), labels(pixels);
  for (int64_t image = 0; image < images; ++image) {
    with_value(element_of(query), [&](auto zero) {
      using A = decltype(zero);
      const A* weight = at<A>(weights, image);
      int64_t offsets[2] = {0, 0};
      for (int64_t j = 0; j < positions; ++j)
        if (weight[j] != 0) order[offsets[1]++] = j;
      const Reference points(support, image, order.data(), offsets, 1, options, weight, nullptr,
                             false);
      Matching m = points.matching(query);
      A* score_of = at<A>(scores, image);
      m.scores = score_of;
      m.labels = labels.data();
      m.argbest = at<int32_t>(argbest, image);
      score(m, points.run);
      // a position of weight 0 has cosine 0, and so has an empty support
      const bool seeded = offsets[1] < positions || positions == 0;
      for (int64_t i = 0; i < pixels; ++i) {
        const bool zero_wins = seeded && score_of[i] <= 0;
        if (zero_wins) score_of[i] = 0;
        m.argbest[i] = zero_wins ? -1 : static_cast<int32_t>(order[m.argbest[i]]);
      }
    });
  }
  return {scores, argbest};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("matching_scores", TORCH_BOX(&matching_scores));
  m.impl("prior_scores", TORCH_BOX(&prior_scores));
}

}  // namespace pixelkernels::similarity
