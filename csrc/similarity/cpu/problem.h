// Prepares the points of an image for the similarity kernels: their norms, the collapse to one
// point per class, and their packing.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "common/outputs.h"
#include "common/parallel.h"
#include "common/workspace.h"
#include "similarity/split.h"

namespace pixelkernels::similarity {

inline double number(const Tensor& scalar) {
  return scalar.scalar_type() == ScalarType::Double ? *data<double>(scalar)
                                                    : static_cast<double>(*data<float>(scalar));
}

struct Options {
  Metric metric;
  Transform transform;
  Reduce reduce;
  int64_t k;
  double scale, shift, eps;

  static Options of(const Tensor& scale, const Tensor& shift, int64_t metric, int64_t transform,
                    int64_t reduce, int64_t k) {
    return {static_cast<Metric>(metric),
            static_cast<Transform>(transform),
            static_cast<Reduce>(reduce),
            k,
            number(scale),
            number(shift),
            0};
  }

  // The sum or mean of an affine similarity over a class is that of one point, the class mean.
  bool collapses() const {
    return transform == Transform::kIdentity && (reduce == Reduce::kSum || reduce == Reduce::kMean);
  }
};

// The number of terms that points are split into, or 0 if their products take whole factors.
inline int64_t split_terms(const Points& points) {
  if (!has_matrix_tiles() || points.element == Element::kDouble ||
      !split::pays(points.count, points.depth.channels))
    return 0;
  return points.factor ? split::kTerms : split::terms_of(points.element);
}

// The data of one image of a contiguous tensor.
template <class T = char>
T* at(const Tensor& tensor, int64_t image) {
  const int64_t each = tensor.size(0) ? tensor.numel() / tensor.size(0) : 0;
  return reinterpret_cast<T*>(data<char>(tensor) +
                              image * each * static_cast<int64_t>(tensor.element_size()));
}

// Blocks of queries that stay in the cache for some points, in groups of nearly equal size.
struct BlockGroups {
  int64_t count, each;
  explicit BlockGroups(int64_t blocks) {
    constexpr int64_t kMost = 16;
    count = (blocks + kMost - 1) / kMost;
    each = count ? (blocks + count - 1) / count : 1;
  }
};

// Points that are packed as they are listed, and transposed for gradients.
template <class A>
class PackedPoints {
 public:
  PackedPoints() = default;
  PackedPoints(Points& points, bool gradient) {
    const int64_t rows = tiles_of(points.count) * kMR, depth = points.depth.padded();
    packed_ = Workspace(rows * depth * sizeof(A));
    points.packed = packed_.data();
    if (gradient) {
      transposed_ = Workspace(rows * tiles_of(depth) * kMR * sizeof(A));
      points.transposed = transposed_.data();
    }
    const Kernels& run = kernels()[points.element];
    parallel((rows + kMC - 1) / kMC, kMC * (depth + 1),
             [&](int64_t group) { run.pack(points, group); });
  }

 private:
  Workspace packed_, transposed_;
};

// The points of one image that its queries are compared with.
class Reference {
 public:
  // `order` lists flat positions class by class, class c at [offsets[c], offsets[c + 1]); `weights`
  // multiplies the features, and `values` is softmax's, both by flat position.
  Reference(const Tensor& features, int64_t image, const int64_t* order, const int64_t* offsets,
            int64_t classes, const Options& options, const void* weights, const void* values,
            bool gradient)
      : element(element_of(features)),
        run(kernels()[element]),
        options(options),
        offsets(offsets),
        classes(classes) {
    listed.features = view_of(features);
    listed.element = element;
    listed.image = image;
    listed.depth = Depth(features.size(1));
    listed.count = offsets[classes];
    listed.order = order;
    with_value(element, [&](auto zero) { prepare<decltype(zero)>(weights, values, gradient); });
  }

  Element element;
  const Kernels& run;
  Options options;
  const int64_t* offsets;
  int64_t classes;
  Points listed{};  // unpacked
  Points points{};  // packed
  std::vector<int64_t> count;

  // null, or the packed point of a class
  const int64_t* slot() const { return slot_.empty() ? nullptr : slot_.data(); }

  Matching matching(const Tensor& query) const {
    Matching m{};
    m.points = points;
    m.query = view_of(query);
    m.element = element;
    m.image = listed.image;
    m.pixels = query.size(2) * query.size(3);
    m.classes = classes;
    m.metric = options.metric;
    m.transform = options.transform;
    m.reduce = options.reduce;
    // no class has more points than there are
    m.k = options.reduce == Reduce::kTopK ? std::max<int64_t>(1, std::min(options.k, listed.count))
                                          : 1;
    m.scale = options.scale;
    m.shift = options.shift;
    m.eps = options.eps;
    m.smaller = options.metric == Metric::kSqeuclidean && options.scale > 0;
    m.count = count.data();
    m.factor = factor_.data();
    return m;
  }

 private:
  template <class A>
  void prepare(const void* weights, const void* values, bool gradient) {
    const int64_t n = listed.count;
    label_.resize(n);
    factor_ = Workspace(classes * sizeof(A));
    for (int64_t c = 0; c < classes; ++c) {
      const int64_t own = offsets[c + 1] - offsets[c];
      count.push_back(own);
      std::fill(label_.begin() + offsets[c], label_.begin() + offsets[c + 1],
                static_cast<int32_t>(c));
      double factor = 1;
      if (options.reduce == Reduce::kSum && options.collapses()) factor = own;
      if (options.reduce == Reduce::kMean && !options.collapses() && own) factor = 1.0 / own;
      if (options.reduce == Reduce::kTopK && own) factor = 1.0 / std::min(own, options.k);
      factor_.data<A>()[c] = static_cast<A>(factor);
    }
    listed.label = label_.data();
    if (options.metric != Metric::kDot) {
      square_ = Workspace(n * sizeof(A));
      parallel((n + kMC - 1) / kMC, kMC * listed.depth.channels, [&](int64_t i) {
        run.squares(listed, square_.data(), i * kMC, std::min((i + 1) * kMC, n));
      });
    }
    A* square = square_.data<A>();
    if (options.metric == Metric::kCosine) {
      scale_ = Workspace(n * sizeof(A));
      for (int64_t p = 0; p < n; ++p)
        scale_.data<A>()[p] = 1 / std::max(std::sqrt(square[p]), static_cast<A>(1e-12));
    }
    if (options.metric == Metric::kPrior) {
      scale_ = Workspace(n * sizeof(A));
      for (int64_t p = 0; p < n; ++p) {
        const A weight = static_cast<const A*>(weights)[listed.order[p]];
        scale_.data<A>()[p] = weight;
        square[p] = weight * std::sqrt(square[p]);
      }
    }
    if (values) {
      value_ = Workspace(n * sizeof(A));
      for (int64_t p = 0; p < n; ++p)
        value_.data<A>()[p] = static_cast<const A*>(values)[listed.order[p]];
    }
    listed.factor = scale_.data();
    points = listed;
    if (options.collapses()) collapse<A>();
    points.square = options.metric == Metric::kCosine ? nullptr : square_.data();
    points.value = value_.data();
    pack<A>(gradient);
  }

  // One point per class present: the mean of its points, with the mean of their |r|^2.
  template <class A>
  void collapse() {
    const int64_t channels = listed.depth.channels;
    means_ = Workspace(classes * channels * sizeof(A));
    parallel((channels + 15) / 16, 16 * listed.count, [&](int64_t i) {
      run.means(listed, offsets, classes, means_.data(), 16 * i, std::min(16 * (i + 1), channels));
    });
    A* square = square_.data<A>();
    slot_.assign(classes, -1);
    for (int64_t c = 0; c < classes; ++c) {
      if (count[c] == 0) continue;
      slot_[c] = static_cast<int64_t>(present_.size());
      if (square) {
        double sum = 0;
        for (int64_t p = offsets[c]; p < offsets[c + 1]; ++p) sum += square[p];
        // in place: every class before has a point, so none of this class is overwritten unread
        square[present_.size()] = static_cast<A>(sum / static_cast<double>(count[c]));
      }
      present_.push_back(c);
      present_label_.push_back(static_cast<int32_t>(c));
    }
    points.features = {means_.data(), 0, 1, 0, channels, classes};
    points.element = element == Element::kDouble ? Element::kDouble : Element::kFloat;
    points.image = 0;
    points.count = static_cast<int64_t>(present_.size());
    points.order = present_.data();
    points.label = present_label_.data();
    points.factor = nullptr;
  }

  template <class A>
  void pack(bool gradient) {
    const Depth& depth = points.depth;
    const int64_t padded = tiles_of(points.count) * kMR;
    packed_ = Workspace(padded * depth.padded() * sizeof(A));
    points.packed = packed_.data();
    if (gradient) {
      across_ = Workspace(padded * tiles_of(depth.padded()) * kMR * sizeof(A));
      points.transposed = across_.data();
    }
    // gradients take the points in chunks and split one chunk at a time
    const bool splits = !gradient && split_terms(points) > 0;
    if (splits) {
      points.terms = split_terms(points);
      split_ = Workspace(split::point_terms(padded, depth, points.terms) * sizeof(split::Term));
      points.split = split_.data();
    }
    const int64_t groups = (padded + kMC - 1) / kMC;
    std::vector<char> fits(groups, splits);
    const auto& own = kernels()[points.element];
    parallel(groups, kMC * depth.padded(), [&](int64_t i) {
      own.pack(points, i);
      if constexpr (split::kBuilt)
        if (splits) fits[i] = split::split_points(points, i, normalises(options.metric));
    });
    if (std::find(fits.begin(), fits.end(), false) != fits.end()) points.split = nullptr;
  }

  std::vector<int32_t> label_, present_label_;
  std::vector<int64_t> present_, slot_;
  Workspace factor_, square_, scale_, value_, means_, packed_, across_, split_;
};

}  // namespace pixelkernels::similarity
