// The CPU side of the operators on pixel weights.
#include <cmath>
#include <tuple>

#include "regions/cpu/problem.h"

namespace pixelkernels::regions {
namespace {

// Small blocks spread a single image evenly over the threads.
constexpr int64_t kWeightedBlock = 2048;
// The features of a round, per thread: the L2 cache of a core.
constexpr int64_t kRoundBytes = int64_t{2} << 20;

// A weighted problem: one region, no labels, and sums over all blocks of an image.
struct Weighted : Problem {
  WeightedArgs args{};
  // the blocks' partial sums, and their sums of weights and least weights; a factor for each image
  Tensor zeros, sums, totals, least, factor;

  Weighted(const Tensor& features, const Tensor& weights, bool partials)
      : Problem(features, nullptr, 1, partials, kWeightedBlock), zeros(pack(nullptr, nullptr)) {
    STD_TORCH_CHECK(weights.is_contiguous() && weights.scalar_type() == accumulate_type(in.element),
                    "pixelkernels: weights must be contiguous, in the accumulation dtype");
    args.input = in;
    args.weights = weights.data_ptr();
    args.centre = data(zeros);
    if (!partials) return;
    sums = sum_tables();
    totals = output(features, {in.batch, in.blocks}, ScalarType::Double);
    least = output(features, {in.batch, in.blocks}, ScalarType::Double);
    factor = output(features, {in.batch}, ScalarType::Double);
    args.sums = data(sums);
    args.totals = data<double>(totals);
    args.least = data<double>(least);
  }

  // body(first, last) for rounds of images: the features that its first loop reads are still in the
  // caches of the same cores in the second loop.
  template <class Body>
  void for_rounds(const Body& body) const {
    const int64_t values = std::max<int64_t>(in.channels * in.pixels, 1);
    const int64_t image = values * static_cast<int64_t>(features.element_size());
    const int64_t round = kRoundBytes * torch::stable::get_num_threads();
    const int64_t images = std::max<int64_t>(round / image, 1);
    for (int64_t first = 0; first < in.batch; first += images)
      body(first, std::min(first + images, in.batch));
  }

  // Fills out [B, C] with factor(sum of weights) * sum_i weights_i (f_i - centre), for the images
  // [first, last).
  template <class Factor>
  void sum(int64_t first, int64_t last, const void* weights, const void* centre, const Tensor& out,
           const Factor& to_factor) {
    WeightedArgs pass = args;
    pass.weights = weights;
    pass.centre = centre;
    for_blocks(first, last,
               [&](int64_t image, int64_t block) { run.weighted_block(pass, image, block); });
    for (int64_t image = first; image < last; ++image) {
      double total = 0;
      for (int64_t block = 0; block < in.blocks; ++block)
        total += pass.totals[image * in.blocks + block];
      data<double>(factor)[image] = to_factor(image, total);
    }
    for_images(first, last, [&](int64_t image) {
      run.merge_sums(in, data(sums), data<double>(factor), data(out), image, 0);
    });
  }

  template <class Body>
  void for_images(int64_t first, int64_t last, const Body& body) const {
    parallel(last - first, 4 * in.blocks * in.table(), [&](int64_t i) { body(first + i); });
  }

  void pack_images(int64_t first, int64_t last, const Tensor& values, const Tensor& table) const {
    const PackArgs given{in, data(values), nullptr, nullptr, nullptr, data(table)};
    for_images(first, last, [&](int64_t image) { run.pack(given, image); });
  }

  double value(const Tensor& tensor, int64_t i) const {
    return in.element == Element::kDouble ? data<double>(tensor)[i] : data<float>(tensor)[i];
  }
  void set(const Tensor& tensor, int64_t i, double x) const {
    if (in.element == Element::kDouble)
      data<double>(tensor)[i] = x;
    else
      data<float>(tensor)[i] = static_cast<float>(x);
  }

  // The weighted mean, a sum of 0 giving the mean 0, and the total weight, of some images.
  void mean(int64_t first, int64_t last, double eps, const Tensor& mean, const Tensor& total) {
    sum(first, last, args.weights, args.centre, mean, [&](int64_t image, double sum) {
      set(total, image, sum);
      return sum + eps == 0 ? 0 : 1 / (sum + eps);
    });
    for (int64_t i = first * in.blocks; i < last * in.blocks; ++i)
      if (args.least[i] < 0) refuse("weights: expected no negative value, got ", args.least[i]);
  }

  // T of the gradient of the mean, packed
  Tensor direction(const Tensor& grad_mean, const Tensor& total, double eps) const {
    Tensor out = statistics({in.batch, in.channels});
    for (int64_t i = 0; i < in.batch * in.channels; ++i) {
      const double divisor = value(total, i / in.channels) + eps;
      set(out, i, divisor == 0 ? 0 : value(grad_mean, i) / divisor);
    }
    return pack(data(out), nullptr);
  }

  // What the gradient of a weighted mean needs; `coefficient` adds that of distances to `centre`.
  std::tuple<Tensor, Tensor> begin_backward(const Tensor& weights, const Tensor& centre,
                                            const Tensor& direction, const void* coefficient) {
    Tensor gradient = output_like(features), weight_gradient = output_like(weights);
    args.centre = data(centre);
    args.direction = data(direction);
    args.coefficient = coefficient;
    args.gradient = view_of(gradient);
    args.weight_gradient = data(weight_gradient);
    return {gradient, weight_gradient};
  }
  void backward(int64_t first, int64_t last) const {
    for_blocks(first, last,
               [&](int64_t image, int64_t block) { run.weighted_backward(args, image, block); });
  }
};

// grad_i / distance_i, or 2 grad_i for squared distances; 0 where the gradient is 0 (the distance
// may be NaN), or the distance is 0 or undefined.
template <class A>
void fill_coefficient(const void* grad, const void* distance, void* coefficient, int64_t begin,
                      int64_t pixels, bool defined, bool squared) {
  const A *g = static_cast<const A*>(grad) + begin, *d = static_cast<const A*>(distance) + begin;
  A* out = static_cast<A*>(coefficient) + begin;
  for (int64_t i = 0; i < pixels; ++i)
    out[i] = !defined ? 0 : squared ? 2 * g[i] : g[i] == 0 || d[i] == 0 ? 0 : g[i] / d[i];
}

std::tuple<Tensor, Tensor> weighted_mean(Tensor features, Tensor weights, double eps) {
  Weighted w(features, weights, true);
  Tensor mean = w.statistics({w.in.batch, w.in.channels}), total = w.statistics({w.in.batch});
  w.mean(0, w.in.batch, eps, mean, total);
  return {mean, total};
}

std::tuple<Tensor, Tensor> weighted_mean_backward(Tensor grad_mean, Tensor features, Tensor weights,
                                                  Tensor mean, Tensor total, double eps) {
  Weighted w(features, weights, false);
  Tensor centre = w.pack(data(mean), nullptr), direction = w.direction(grad_mean, total, eps);
  const auto gradients = w.begin_backward(weights, centre, direction, nullptr);
  w.backward(0, w.in.batch);
  return gradients;
}

Tensor weighted_mean_share(Tensor grad_mean, Tensor features, Tensor weights, Tensor total,
                           double eps) {
  Weighted w(features, weights, false);
  Tensor gradient = output_like(features), direction = w.direction(grad_mean, total, eps);
  w.args.direction = data(direction);
  w.args.gradient = view_of(gradient);
  w.for_blocks([&](int64_t image, int64_t block) { w.run.weighted_share(w.args, image, block); });
  return gradient;
}

std::tuple<Tensor, Tensor, Tensor> background_distance(Tensor features, Tensor weights,
                                                       bool squared) {
  Weighted w(features, weights, true);
  Tensor mean = w.statistics({w.in.batch, w.in.channels}), total = w.statistics({w.in.batch});
  Tensor distance = output_like(weights), centre = w.tables(w.in.batch);
  WeightedArgs args = w.args;
  args.centre = data(centre);
  args.total = data(total);
  args.distance = data(distance);
  args.squared = squared;
  w.for_rounds([&](int64_t first, int64_t last) {
    w.mean(first, last, 0, mean, total);
    w.pack_images(first, last, mean, centre);
    w.for_blocks(first, last,
                 [&](int64_t image, int64_t block) { w.run.distance(args, image, block); });
  });
  return {distance, mean, total};
}

std::tuple<Tensor, Tensor> background_distance_backward(Tensor grad_distance, Tensor features,
                                                        Tensor weights, Tensor distance,
                                                        Tensor mean, Tensor total, bool squared) {
  Weighted w(features, weights, true);
  const Input& in = w.in;
  Tensor coefficient = output_like(weights);
  const auto fill =
      in.element == Element::kDouble ? fill_coefficient<double> : fill_coefficient<float>;
  Tensor centre = w.pack(data(mean), nullptr), direction = w.tables(in.batch);
  Tensor sums = w.statistics({in.batch, in.channels});
  const auto gradients = w.begin_backward(weights, centre, direction, data(coefficient));
  w.for_rounds([&](int64_t first, int64_t last) {
    w.for_blocks(first, last, [&](int64_t image, int64_t block) {
      const int64_t begin = block * in.block_pixels;
      const int64_t pixels = std::min(in.block_pixels, in.pixels - begin);
      fill(data(grad_distance), data(distance), data(coefficient), image * in.pixels + begin,
           pixels, w.value(total, image) != 0, squared);
    });
    w.sum(first, last, data(coefficient), data(centre), sums, [&](int64_t image, double) {
      return w.value(total, image) != 0 ? -1 / w.value(total, image) : 0;
    });
    w.pack_images(first, last, sums, direction);
    w.backward(first, last);
  });
  return gradients;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("weighted_mean", TORCH_BOX(&weighted_mean));
  m.impl("weighted_mean_backward", TORCH_BOX(&weighted_mean_backward));
  m.impl("weighted_mean_share", TORCH_BOX(&weighted_mean_share));
  m.impl("background_distance", TORCH_BOX(&background_distance));
  m.impl("background_distance_backward", TORCH_BOX(&background_distance_backward));
}

}  // namespace pixelkernels::regions
