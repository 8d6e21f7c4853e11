// The CPU side of the reductions over both sides of all pairs of two images.
#include <limits>
#include <tuple>

#include "similarity/cpu/problem.h"

namespace pixelkernels::similarity {
namespace {

constexpr int64_t kTasks = 32;  // at least, so that all threads have work
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// [B, D, N] as images of one row.
View view_of_rows(const Tensor& x) {
  STD_TORCH_CHECK(x.size(2) <= std::numeric_limits<int32_t>::max(),
                  "pixelkernels: an image of at most 2^31 - 1 pixels");
  return {x.data_ptr(), x.stride(0), x.stride(1), 0, x.stride(2), std::max<int64_t>(x.size(2), 1)};
}

const bool* kept_of(const std::optional<Tensor>& mask, int64_t image) {
  return mask ? at<const bool>(*mask, image) : nullptr;
}

// One image of `points`, packed, against the queries of the same image.
template <class A>
class Side {
 public:
  Side(const Tensor& queries, const bool* kept_queries, const Tensor& points, const bool* kept,
       int64_t image, double scale, bool gradient)
      : run(kernels()[element_of(points)]) {
    for (int64_t j = 0; j < points.size(2); ++j)
      if (!kept || kept[j]) order.push_back(j);
    m.element = element_of(points);
    m.queries = view_of_rows(queries);
    m.image = image;
    m.pixels = queries.size(2);
    m.kept = kept_queries;
    m.scale = scale;
    m.points.features = view_of_rows(points);
    m.points.element = m.element;
    m.points.image = image;
    m.points.depth = Depth(points.size(1));
    m.points.order = order.data();
    m.points.count = static_cast<int64_t>(order.size());
    packed_ = PackedPoints<A>(m.points, gradient);
  }

  // The points' entries of an array of pixels.
  std::vector<A> of_points(const A* pixels) const {
    std::vector<A> listed(order.size());
    for (size_t p = 0; p < order.size(); ++p) listed[p] = pixels[order[p]];
    return listed;
  }

  const Kernels& run;
  std::vector<int64_t> order;
  Pairs m{};

 private:
  PackedPoints<A> packed_;
};

// Runs a reduction, and keeps the largest of queries and points by part and by group.
template <class A>
class Reduction {
 public:
  explicit Reduction(Pairs& m) : m_(m) {
    const BlockGroups of_queries(blocks_of(m.pixels));
    const int64_t points = m.points.count;
    groups = of_queries.count;
    m.blocks_at_once = of_queries.each;
    const int64_t chunks = (points + kMC - 1) / kMC;
    const int64_t wanted = groups ? std::clamp<int64_t>(kTasks / groups, 1, kTasks) : 1;
    m.step = std::max<int64_t>((chunks + wanted - 1) / wanted, 1) * kMC;
    parts = (points + m.step - 1) / m.step;
    largest.assign(parts * m.pixels, -kInfinity);
    column_largest.assign(groups * points, -kInfinity);
    m.largest = largest.data();
    m.column_largest = column_largest.data();
  }
  void run(const Kernels& kernels, void (*each)(const Pairs&, int64_t, int64_t, void*)) const {
    const int64_t bytes = kernels.pairs_scratch(m_);
    parallel_ranges(groups * parts, 1, [&](int64_t begin, int64_t end) {
      const Workspace scratch(bytes);
      for (int64_t i = begin; i < end; ++i) each(m_, i / parts, i % parts, scratch.data());
    });
  }

  int64_t groups, parts;
  std::vector<A> largest, column_largest;

 private:
  Pairs& m_;
};

// The logsumexp of column i from the largest [lists, count] and the sums relative to them.
template <class A>
double log_sum(const std::vector<A>& largest, const std::vector<double>& sums, int64_t lists,
               int64_t count, int64_t i) {
  A most = -static_cast<A>(kInfinity);
  for (int64_t k = 0; k < lists; ++k) most = std::max(most, largest[k * count + i]);
  if (most == -kInfinity) return -kInfinity;
  double sum = 0;
  for (int64_t k = 0; k < lists; ++k)
    sum += sums[k * count + i] * std::exp(static_cast<double>(largest[k * count + i] - most));
  return most + std::log(sum);
}

// Where the largest of column i of [lists, count] is, the first of equals, or -1.
template <class A>
int64_t largest_of(const std::vector<A>& largest, int64_t lists, int64_t count, int64_t i) {
  int64_t best = -1;
  A most = -static_cast<A>(kInfinity);
  for (int64_t at = i; at < lists * count; at += count)
    if (largest[at] > most) {
      most = largest[at];
      best = at;
    }
  return best;
}

std::tuple<Tensor, Tensor> log_sums(Tensor a, Tensor b, std::optional<Tensor> mask_a,
                                    std::optional<Tensor> mask_b, double scale) {
  Tensor rows = output(a, {a.size(0), a.size(2)}, ScalarType::Double);
  Tensor columns = output(a, {b.size(0), b.size(2)}, ScalarType::Double);
  with_value(element_of(a), [&](auto zero) {
    using A = decltype(zero);
    for (int64_t image = 0; image < a.size(0); ++image) {
      const bool *kept_a = kept_of(mask_a, image), *kept_b = kept_of(mask_b, image);
      Side<A> side(a, kept_a, b, kept_b, image, scale, false);
      Pairs& m = side.m;
      Reduction<A> reduction(m);
      std::vector<double> sums(reduction.largest.size()),
          column_sums(reduction.column_largest.size());
      m.sums = sums.data();
      m.column_sums = column_sums.data();
      reduction.run(side.run, side.run.log_sums);
      double *row = at<double>(rows, image), *column = at<double>(columns, image);
      for (int64_t i = 0; i < m.pixels; ++i)
        row[i] = kept_a && !kept_a[i]
                     ? 0
                     : log_sum(reduction.largest, sums, reduction.parts, m.pixels, i);
      std::fill_n(column, b.size(2), 0.0);
      for (int64_t p = 0; p < m.points.count; ++p)
        column[side.order[p]] =
            log_sum(reduction.column_largest, column_sums, reduction.groups, m.points.count, p);
    }
  });
  return {rows, columns};
}

std::tuple<Tensor, Tensor, Tensor> mutual_best(Tensor a, Tensor b, std::optional<Tensor> mask_a,
                                               std::optional<Tensor> mask_b,
                                               std::optional<Tensor> rows,
                                               std::optional<Tensor> columns, double scale) {
  Tensor best_b = output(a, {a.size(0), a.size(2)}, ScalarType::Long);
  Tensor similarity = output(a, {a.size(0), a.size(2)}, accumulate_type(element_of(a)));
  Tensor best_a = output(a, {b.size(0), b.size(2)}, ScalarType::Long);
  with_value(element_of(a), [&](auto zero) {
    using A = decltype(zero);
    for (int64_t image = 0; image < a.size(0); ++image) {
      const bool *kept_a = kept_of(mask_a, image), *kept_b = kept_of(mask_b, image);
      Side<A> side(a, kept_a, b, kept_b, image, scale, false);
      Pairs& m = side.m;
      std::vector<A> subtracted;
      if (columns) subtracted = side.of_points(at<A>(*columns, image));
      m.rows = rows ? at<A>(*rows, image) : nullptr;
      m.columns = columns ? subtracted.data() : nullptr;
      Reduction<A> reduction(m);
      std::vector<int32_t> best(reduction.largest.size(), -1);
      std::vector<int32_t> column_best(reduction.column_largest.size(), -1);
      m.best = best.data();
      m.column_best = column_best.data();
      std::vector<A> similarities(reduction.largest.size());
      m.similarity = similarities.data();
      reduction.run(side.run, side.run.mutual_best);
      A* similarity_of = at<A>(similarity, image);
      int64_t *of_a = at<int64_t>(best_b, image), *of_b = at<int64_t>(best_a, image);
      for (int64_t i = 0; i < m.pixels; ++i) {
        const int64_t found = largest_of(reduction.largest, reduction.parts, m.pixels, i);
        const bool none = found < 0 || (kept_a && !kept_a[i]);
        of_a[i] = none ? -1 : side.order[best[found]];
        similarity_of[i] = none ? -static_cast<A>(kInfinity) : similarities[found];
      }
      std::fill_n(of_b, b.size(2), -1);
      for (int64_t p = 0; p < m.points.count; ++p) {
        const int64_t found =
            largest_of(reduction.column_largest, reduction.groups, m.points.count, p);
        of_b[side.order[p]] = found < 0 ? -1 : column_best[found];
      }
    }
  });
  return {best_b, similarity, best_a};
}

std::tuple<Tensor, Tensor> log_sums_backward(Tensor a, Tensor b, std::optional<Tensor> mask_a,
                                             std::optional<Tensor> mask_b, Tensor rows,
                                             Tensor columns, Tensor grad_rows, Tensor grad_columns,
                                             double scale) {
  Tensor grad_a = output_like(a), grad_b = output_like(b);
  const auto one_side = [&](const Tensor& x, const auto& mask_x, const Tensor& y,
                            const auto& mask_y, const Tensor& own, const Tensor& other,
                            const Tensor& grad_own, const Tensor& grad_other, const Tensor& out) {
    with_value(element_of(x), [&](auto zero) {
      using A = decltype(zero);
      for (int64_t image = 0; image < x.size(0); ++image) {
        Side<A> side(x, kept_of(mask_x, image), y, kept_of(mask_y, image), image, scale, true);
        Pairs& m = side.m;
        const std::vector<A> sums = side.of_points(at<A>(other, image));
        const std::vector<A> grads = side.of_points(at<A>(grad_other, image));
        m.rows = at(own, image);
        m.columns = sums.data();
        m.grad_rows = at(grad_own, image);
        m.grad_columns = grads.data();
        m.grad = view_of_rows(out);
        const int64_t bytes = side.run.gradient_scratch(m.points.depth);
        parallel_ranges(blocks_of(m.pixels), 1, [&](int64_t begin, int64_t end) {
          const Workspace scratch(bytes);
          for (int64_t block = begin; block < end; ++block)
            side.run.log_sums_gradient(m, block, scratch.data());
        });
      }
    });
  };
  one_side(a, mask_a, b, mask_b, rows, columns, grad_rows, grad_columns, grad_a);
  one_side(b, mask_b, a, mask_a, columns, rows, grad_columns, grad_rows, grad_b);
  return {grad_a, grad_b};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("log_sums", TORCH_BOX(&log_sums));
  m.impl("log_sums_backward", TORCH_BOX(&log_sums_backward));
  m.impl("mutual_best", TORCH_BOX(&mutual_best));
}

}  // namespace pixelkernels::similarity
