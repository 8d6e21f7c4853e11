// The CPU side of the loss over all pairs: the queries are the valid pixels of x, the points those
// of y, and the classes the labels of y.
#include <tuple>

#include "similarity/cpu/rounds.h"

namespace pixelkernels::similarity {
namespace {

std::vector<int64_t> labels_of(const Tensor& labels, int64_t image) {
  return with_label(label_of(labels), [&](auto zero) {
    const auto* first = at<const decltype(zero)>(labels, image);
    return std::vector<int64_t>(first, first + labels.size(1));
  });
}

// Pixels with a label first, then those without.
struct Listed {
  std::vector<int64_t> order;
  int64_t valid;

  explicit Listed(const std::vector<int64_t>& labels) : order(labels.size()) {
    int64_t next = 0;
    for (bool want : {true, false})
      for (size_t i = 0; i < labels.size(); ++i)
        if ((labels[i] >= 0) == want) order[next++] = static_cast<int64_t>(i);
    valid = static_cast<int64_t>(
        std::count_if(labels.begin(), labels.end(), [](int64_t label) { return label >= 0; }));
  }
};

// The first image of a view.
View image_of(const Tensor& features, int64_t image) {
  View view = view_of(features);
  view.data = static_cast<char*>(view.data) +
              image * view.batch_stride * static_cast<int64_t>(features.element_size());
  return view;
}

template <class A>
class Image {
 public:
  Image(const Tensor& x, const Tensor& y, const Tensor& x_labels, const Tensor& y_labels,
        int64_t image)
      : x_(x), y_(y), image_(image), labels_(labels_of(x_labels, image)), queries_(labels_) {
    const std::vector<int64_t> labels = labels_of(y_labels, image);
    points_ = Listed(labels);
    const auto by_label = [&](int64_t i, int64_t j) { return labels[i] < labels[j]; };
    std::stable_sort(points_.order.begin(), points_.order.begin() + points_.valid, by_label);
    for (int64_t p = 0; p < points_.valid; ++p) {
      const int64_t label = labels[points_.order[p]];
      if (classes_.empty() || classes_.back() != label) {
        classes_.push_back(label);
        offsets_.push_back(p);
      }
    }
    offsets_.push_back(points_.valid);
  }

  // affine: a, c, alpha, beta; the pointers to gradients may be null where there are no pixels
  void add(const A* affine, double* totals, bool gradient, A* grad_x, A* grad_y) const {
    const Options options{
        Metric::kDot, Transform::kSigmoid, Reduce::kSum, 0, affine[0], affine[1], 0};
    const int64_t classes = static_cast<int64_t>(classes_.size());
    const int64_t channels = x_.size(1), queries = queries_.valid;
    const int64_t pixels = static_cast<int64_t>(labels_.size());
    const Reference points(y_, image_, points_.order.data(), offsets_.data(), classes, options,
                           nullptr, nullptr, gradient);
    Matching m = points.matching(x_);
    m.image = 0;
    m.pixels = queries;
    m.query = image_of(x_, image_);
    // The valid queries, [D, n], share the memory of their gradients.
    Workspace gathered;
    A* own = grad_x;
    if (queries < pixels) {
      if (!gradient) {
        gathered = Workspace(channels * queries * sizeof(A));
        own = gathered.data<A>();
      }
      gather(m.query, own);
      m.query = {own, 0, queries, 0, 1, queries ? queries : 1};
    }
    std::vector<int32_t> classes_of_queries(queries);
    for (int64_t i = 0; i < queries; ++i) classes_of_queries[i] = class_of(queries_.order[i]);
    Rounds<A> rounds(points.run, m, gradient);
    rounds.g.query_class = classes_of_queries.data();
    rounds.g.alpha = affine[2];
    rounds.g.beta = affine[3];
    rounds.g.grad_query = {grad_x, 0, queries, 0, 1, queries ? queries : 1};
    rounds.all();
    for (int64_t i = 0; i < kTotals; ++i) totals[i] += rounds.totals[i];
    if (!gradient) return;
    if (queries < pixels) spread(grad_x);
    const int64_t positions = static_cast<int64_t>(points_.order.size());
    const View out{grad_y, 0, positions, 0, 1, positions ? positions : 1};
    Points listed = points.listed;
    listed.features = image_of(y_, image_);
    listed.image = 0;
    const PointGradient finish{rounds.g, listed, positions, nullptr, out};
    parallel((positions + kMC - 1) / kMC, kMC * (channels + 1), [&](int64_t i) {
      points.run.finish_points(finish, i * kMC, std::min((i + 1) * kMC, positions));
    });
  }

 private:
  int32_t class_of(int64_t query) const {
    const auto found = std::lower_bound(classes_.begin(), classes_.end(), labels_[query]);
    return found != classes_.end() && *found == labels_[query]
               ? static_cast<int32_t>(found - classes_.begin())
               : -1;
  }

  // The valid queries, [D, n].
  void gather(const View& view, A* out) const {
    const int64_t n = queries_.valid;
    parallel(x_.size(1), n, [&](int64_t d) {
      const A* from = static_cast<const A*>(view.data) + d * view.channel_stride;
      for (int64_t i = 0; i < n; ++i) {
        const int64_t pixel = queries_.order[i];
        out[d * n + i] = from[pixel / view.row_length * view.row_stride +
                              pixel % view.row_length * view.pixel_stride];
      }
    });
  }
  // Moves the gradients of the valid queries, [D, n], to their pixels, [D, H W], in place. Every
  // target lies further on, so the last one moves first.
  void spread(A* gradients) const {
    const int64_t pixels = static_cast<int64_t>(labels_.size());
    int64_t next = x_.size(1) * queries_.valid;
    for (int64_t to = x_.size(1) * pixels - 1; to >= 0; --to)
      gradients[to] = labels_[to % pixels] >= 0 ? gradients[--next] : A(0);
  }

  const Tensor &x_, &y_;
  int64_t image_;
  std::vector<int64_t> labels_;
  Listed queries_, points_{{}};
  std::vector<int64_t> classes_, offsets_;
};

std::tuple<Tensor, Tensor, Tensor> pair_terms(Tensor x, Tensor y, Tensor x_labels, Tensor y_labels,
                                              Tensor affine, bool gradient) {
  const Element element = element_of(x);
  STD_TORCH_CHECK(element == Element::kFloat || element == Element::kDouble,
                  "pixelkernels: pair_terms expects float32 or float64");
  const int64_t images = x.size(0), channels = x.size(1);
  const auto gradient_of = [&](const Tensor& labels) {
    return gradient ? output(x, {images, channels, labels.size(1)}, x.scalar_type())
                    : output(x, {0}, x.scalar_type());
  };
  Tensor totals = output(x, {kTotals}, ScalarType::Double);
  Tensor grad_x = gradient_of(x_labels), grad_y = gradient_of(y_labels);
  double sums[kTotals] = {};
  with_value(element, [&](auto zero) {
    using A = decltype(zero);
    for (int64_t image = 0; image < images; ++image)
      Image<A>(x, y, x_labels, y_labels, image)
          .add(data<A>(affine), sums, gradient, gradient ? at<A>(grad_x, image) : nullptr,
               gradient ? at<A>(grad_y, image) : nullptr);
  });
  double* out = data<double>(totals);
  out[0] = sums[2];
  out[1] = sums[0];
  out[2] = sums[1];
  return {totals, grad_x, grad_y};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) { m.impl("pair_terms", TORCH_BOX(&pair_terms)); }

}  // namespace pixelkernels::similarity
