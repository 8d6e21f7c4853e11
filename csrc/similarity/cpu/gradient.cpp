// The CPU side of the gradient of matching_scores.
#include <tuple>

#include "similarity/cpu/rounds.h"

namespace pixelkernels::similarity {
namespace {

// sum_c grad_c score_c of each query pixel over the classes present.
template <class A>
Workspace softmax_centre(const Matching& m, const A* grad, const A* scores) {
  Workspace sums(m.pixels * sizeof(A));
  A* centre = sums.data<A>();
  std::fill_n(centre, m.pixels, A(0));
  for (int64_t c = 0; c < m.classes; ++c)
    for (int64_t i = 0; m.count[c] && i < m.pixels; ++i)
      centre[i] += grad[c * m.pixels + i] * scores[c * m.pixels + i];
  return sums;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> matching_scores_backward(
    Tensor grad_scores, Tensor query, Tensor reference, Tensor order, Tensor offsets,
    std::optional<Tensor> values, Tensor scale, Tensor shift, Tensor scores, Tensor edge,
    Tensor argbest, int64_t metric, int64_t transform, int64_t reduce, int64_t k) {
  const Options options = Options::of(scale, shift, metric, transform, reduce, k);
  const int64_t images = query.size(0), positions = order.size(1);
  Tensor grad_query = output_like(query), grad_reference = output_like(reference);
  const ScalarType type = accumulate_type(element_of(query));
  Tensor grad_values = values ? output(query, {images, positions}, type) : output(query, {0}, type);
  Tensor grad_scale = output_like(scale), grad_shift = output_like(shift);
  double scales = 0, shifts = 0;
  for (int64_t image = 0; image < images; ++image) {
    const int64_t* listed = at<int64_t>(order, image);
    const Reference points(reference, image, listed, at<int64_t>(offsets, image),
                           offsets.size(1) - 1, options, nullptr,
                           values ? at(*values, image) : nullptr, true);
    Matching m = points.matching(query);
    m.edge = at(edge, image);
    m.argbest = at<int32_t>(argbest, image);
    with_value(points.element, [&](auto zero) {
      using A = decltype(zero);
      Workspace centre;
      if (options.reduce == Reduce::kSoftmax)
        centre = softmax_centre(m, at<A>(grad_scores, image), at<A>(scores, image));
      Rounds<A> rounds(points.run, m, true);
      rounds.g.grad_scores = at(grad_scores, image);
      rounds.g.centre = centre.data();
      rounds.g.grad_query = view_of(grad_query);
      rounds.all();
      shifts += rounds.totals[0];
      scales += rounds.totals[1];
      const PointGradient finish{rounds.g, points.listed, positions, points.slot(),
                                 view_of(grad_reference)};
      parallel((positions + kMC - 1) / kMC, kMC * (query.size(1) + 1), [&](int64_t i) {
        points.run.finish_points(finish, i * kMC, std::min((i + 1) * kMC, positions));
      });
      if (values) {
        A* out = at<A>(grad_values, image);
        std::fill_n(out, positions, A(0));
        for (int64_t p = 0; p < points.listed.count; ++p)
          out[listed[p]] = static_cast<A>(rounds.g.values[p]);
      }
    });
  }
  with_value(element_of(query), [&](auto zero) {
    using A = decltype(zero);
    *data<A>(grad_scale) = static_cast<A>(scales);
    *data<A>(grad_shift) = static_cast<A>(shifts);
  });
  return {grad_query, grad_reference, grad_values, grad_scale, grad_shift};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("matching_scores_backward", TORCH_BOX(&matching_scores_backward));
}

}  // namespace pixelkernels::similarity
