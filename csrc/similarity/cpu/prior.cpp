// The gradient of the prior: each query has one best support pixel, so the gradient gathers and
// scatters along a channel at a time. The formula is in reference.prior_gradient.
#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "common/outputs.h"
#include "common/parallel.h"

namespace pixelkernels::similarity {
namespace {

constexpr int64_t kBlock = 512;  // pixels of a task, whose sums over channels stay in the cache

// body(begin, end) for blocks of pixels
template <class Body>
void for_blocks(int64_t pixels, int64_t channels, const Body& body) {
  parallel((pixels + kBlock - 1) / kBlock, kBlock * channels,
           [&](int64_t i) { body(i * kBlock, std::min((i + 1) * kBlock, pixels)); });
}

// One image. Features are [C, pixels].
template <class A>
struct Prior {
  int64_t channels, queries, points;
  const A *grad, *query, *support, *weights, *scores;
  const int32_t* best;
  double eps;
  A *grad_query, *grad_support, *grad_weights;

  // A pixel of weight 0 is no one's best, and its features may be anything.
  A scaled(int64_t c, int64_t k) const {
    return weights[k] != 0 ? weights[k] * support[c * points + k] : A(0);
  }

  void run() const {
    std::vector<A> length(queries);
    for_blocks(queries, channels, [&](int64_t begin, int64_t end) {
      lengths([&](int64_t c, int64_t i) { return query[c * queries + i]; }, begin, end,
              length.data());
    });
    std::vector<A> point_length(points);
    for_blocks(points, channels, [&](int64_t begin, int64_t end) {
      lengths([&](int64_t c, int64_t k) { return scaled(c, k); }, begin, end, point_length.data());
    });
    // of each query: the factors of u and q in its gradient
    std::vector<A> of_u(queries), of_q(queries);
    std::vector<double> rest(points);
    std::vector<char> chosen(points);
    for (int64_t i = 0; i < queries; ++i) {
      const int64_t k = best[i];
      if (k < 0) continue;
      const A divisor = length[i] * point_length[k] + static_cast<A>(eps);
      of_u[i] = grad[i] / (divisor == 0 ? A(1) : divisor);
      of_q[i] = of_u[i] * scores[i] * point_length[k] / (length[i] == 0 ? A(1) : length[i]);
      rest[k] += eps * static_cast<double>(of_u[i] * scores[i]);
      chosen[k] = true;
    }
    parallel(channels, queries + points, [&](int64_t c) {
      std::vector<A> u(points);
      for (int64_t k = 0; k < points; ++k) u[k] = scaled(c, k);
      const A* from = query + c * queries;
      A *to = grad_query + c * queries, *pull = grad_support + c * points;
      std::fill_n(pull, points, A(0));
      for (int64_t i = 0; i < queries; ++i) {
        const int64_t k = best[i];
        to[i] = k < 0 ? A(0) : of_u[i] * u[k] - of_q[i] * from[i];
        if (k >= 0) pull[k] += of_u[i] * from[i];
      }
    });
    for_blocks(points, 2 * channels, [&](int64_t begin, int64_t end) {
      double along[kBlock] = {};
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t k = begin; k < end; ++k)
          along[k - begin] +=
              static_cast<double>(scaled(c, k)) * static_cast<double>(grad_support[c * points + k]);
      for (int64_t k = begin; k < end; ++k) {
        const double square = static_cast<double>(point_length[k]) * point_length[k];
        along[k - begin] = (along[k - begin] - rest[k]) / (square == 0 ? 1 : square);
        grad_weights[k] = chosen[k] ? static_cast<A>(rest[k] / weights[k]) : A(0);
      }
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t k = begin; k < end; ++k) {
          A& g = grad_support[c * points + k];
          if (chosen[k]) g = weights[k] * (g - scaled(c, k) * static_cast<A>(along[k - begin]));
        }
    });
  }

 private:
  template <class At>
  void lengths(const At& at, int64_t begin, int64_t end, A* out) const {
    double square[kBlock] = {};
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = begin; i < end; ++i) {
        const double x = at(c, i);
        square[i - begin] += x * x;
      }
    for (int64_t i = begin; i < end; ++i) out[i] = static_cast<A>(std::sqrt(square[i - begin]));
  }
};

std::tuple<Tensor, Tensor, Tensor> prior_backward(Tensor grad_scores, Tensor query, Tensor support,
                                                  Tensor weights, Tensor scores, Tensor index,
                                                  double eps) {
  Tensor grad_query = output_like(query), grad_support = output_like(support);
  Tensor grad_weights = output_like(weights);
  const int64_t channels = query.size(1), queries = query.size(2), points = support.size(2);
  with_value(element_of(query), [&](auto zero) {
    using A = decltype(zero);
    for (int64_t image = 0; image < query.size(0); ++image) {
      const int64_t own = image * queries, other = image * points;
      Prior<A>{channels,
               queries,
               points,
               data<const A>(grad_scores) + own,
               data<const A>(query) + own * channels,
               data<const A>(support) + other * channels,
               data<const A>(weights) + other,
               data<const A>(scores) + own,
               data<const int32_t>(index) + own,
               eps,
               data<A>(grad_query) + own * channels,
               data<A>(grad_support) + other * channels,
               data<A>(grad_weights) + other}
          .run();
    }
  });
  return {grad_query, grad_support, grad_weights};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("prior_backward", TORCH_BOX(&prior_backward));
}

}  // namespace pixelkernels::similarity
