// The CPU side of the gradient of matching_scores.
//
// Queries go in rounds of some blocks, points in chunks. For each pair, dL/ds of all its pairs of a
// query and a point is computed and kept, once; the queries' gradients take it up block by block,
// the points' tile by tile. So every sum has an order of its own, whatever the number of threads.
#include <tuple>

#include "similarity/similarity_host.h"

namespace pixelkernels {
namespace {

constexpr int64_t kChunk = 5 * kPointsTogether;
constexpr int64_t kRoundBytes = 16 << 20;

// The rounds of one image.
template <class A>
class Rounds {
 public:
  Rounds(const Reference& reference, const Matching& matching, const void* grad_scores,
         const void* centre, const View& grad_query)
      : run_(reference.run),
        depth_(reference.points.depth),
        blocks_((matching.pixels + kBlock - 1) / kBlock) {
    g.matching = matching;
    g.grad_scores = grad_scores;
    g.centre = centre;
    g.grad_query = grad_query;
    const int64_t count = matching.points.count;
    const int64_t block = 3 * kBlock * depth_.tiled() * static_cast<int64_t>(sizeof(A));
    most_ = std::max<int64_t>(8, std::min<int64_t>(32, kRoundBytes / (block + 1)));
    most_ = std::min(most_, blocks_);
    const int64_t rows = tiles_of(std::min(kChunk, count)) * kTile;
    const int64_t sixes = tiles_of(depth_.padded());
    g.packed = room(most_ * kBlock * depth_.padded());
    g.across = room(most_ * kBlock * depth_.tiled());
    g.square = room(most_ * kBlock);
    g.weights = room(most_ * kBlock * rows);
    g.query = room(most_ * kBlock * sixes * kTile);
    g.row_sums = room(most_ * kBlock);
    g.totals = doubles(2 * most_);
    g.point = room(tiles_of(count) * kTile * depth_.tiled());
    std::fill_n(static_cast<A*>(g.point), tiles_of(count) * kTile * depth_.tiled(), A(0));
    if (matching.metric == Metric::kSqeuclidean) {
      g.block_columns = doubles(most_ * rows);
      g.columns = zeros(count);
    }
    if (matching.points.value) {
      g.block_values = doubles(most_ * rows);
      g.values = zeros(count);
    }
  }

  void all() {
    for (g.round = 0; g.round < blocks_; g.round += most_) {
      g.blocks = std::min(most_, blocks_ - g.round);
      const int64_t work = kBlock * (depth_.channels + 1);
      parallel(g.blocks, work, [&](int64_t block) { run_.pack_query(g, block); });
      const int64_t count = g.matching.points.count;
      for (g.chunk = 0; g.chunk < count; g.chunk += kChunk) {
        g.points = std::min(kChunk, count - g.chunk);
        torch::stable::parallel_for(0, g.blocks, 1, [&](int64_t begin, int64_t end) {
          const Room dots(kPointsTogether * kBlock * sizeof(A));
          for (int64_t block = begin; block < end; ++block) run_.weigh(g, block, dots.data());
        });
        const int64_t groups = (tiles_of(g.points) + kTilesGathered - 1) / kTilesGathered;
        torch::stable::parallel_for(0, groups, 1, [&](int64_t begin, int64_t end) {
          const Room sums(kTilesGathered * kTile * depth_.tiled() * sizeof(A));
          for (int64_t group = begin; group < end; ++group) run_.gather(g, group, sums.data());
        });
      }
      parallel(g.blocks, work, [&](int64_t block) { run_.finish_query(g, block); });
      for (int64_t block = 0; block < g.blocks; ++block) {
        shift += g.totals[2 * block];
        scale += g.totals[2 * block + 1];
      }
    }
  }

  Gradient g{};
  double shift = 0, scale = 0;

 private:
  A* room(int64_t values) { return rooms_.emplace_back(values * sizeof(A)).template data<A>(); }
  double* doubles(int64_t values) {
    return rooms_.emplace_back(values * sizeof(double)).template data<double>();
  }
  double* zeros(int64_t values) {
    double* p = doubles(values);
    std::fill_n(p, values, 0.0);
    return p;
  }

  const SimilarityKernels& run_;
  Depth depth_;
  int64_t blocks_, most_;
  std::vector<Room> rooms_;
};

// sum_c grad_c score_c of each query, over the classes that are there.
template <class A>
Room softmax_centre(const Matching& m, const A* grad, const A* scores) {
  Room room(m.pixels * sizeof(A));
  A* centre = room.data<A>();
  std::fill_n(centre, m.pixels, A(0));
  for (int64_t c = 0; c < m.classes; ++c)
    for (int64_t i = 0; m.count[c] && i < m.pixels; ++i)
      centre[i] += grad[c * m.pixels + i] * scores[c * m.pixels + i];
  return room;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> matching_scores_backward(
    Tensor grad_scores, Tensor query, Tensor reference, Tensor order, Tensor offsets,
    std::optional<Tensor> values, Tensor scale, Tensor shift, Tensor scores, Tensor edge,
    Tensor place, int64_t metric, int64_t transform, int64_t reduce, int64_t k) {
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
    m.place = at<int32_t>(place, image);
    with_value(points.element, [&](auto zero) {
      using A = decltype(zero);
      Room centre;
      if (options.reduce == Reduce::kSoftmax)
        centre = softmax_centre(m, at<A>(grad_scores, image), at<A>(scores, image));
      Rounds<A> rounds(points, m, at(grad_scores, image), centre.data(), view_of(grad_query));
      rounds.all();
      shifts += rounds.shift;
      scales += rounds.scale;
      const PointGradient finish{rounds.g, points.listed, positions, points.slot(),
                                 view_of(grad_reference)};
      parallel((positions + kPointsTogether - 1) / kPointsTogether,
               kPointsTogether * (query.size(1) + 1), [&](int64_t i) {
                 points.run.finish_points(finish, i * kPointsTogether,
                                          std::min((i + 1) * kPointsTogether, positions));
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

}  // namespace pixelkernels
