// The schedule of the gradients of one image, for the host code.
//
// Queries are taken in rounds of blocks, points in chunks. For a round and a chunk, dL/ds of all
// pairs is computed once and stored; the gradients of the queries use it block by block, those of
// the points tile by tile. So the order of every sum is fixed, whatever the number of threads.
#pragma once

#include "similarity/cpu/problem.h"

namespace pixelkernels::similarity {

constexpr int64_t kChunkGroups = 5, kChunkPoints = kChunkGroups * kMC;
constexpr int64_t kRoundBytes = 16 << 20;

template <class A>
class Rounds {
 public:
  // without `gradient`: only the totals
  Rounds(const Kernels& run, const Matching& matching, bool gradient)
      : run_(run),
        depth_(matching.points.depth),
        blocks_(blocks_of(matching.pixels)),
        chunk_(gradient ? kChunkPoints : matching.points.count) {
    g.matching = matching;
    const int64_t count = matching.points.count;
    const int64_t block = 3 * kPixelBlock * depth_.tiled() * static_cast<int64_t>(sizeof(A));
    most_ = std::max<int64_t>(8, std::min<int64_t>(16, kRoundBytes / (block + 1)));
    most_ = std::min(most_, blocks_);
    g.packed = workspace<A>(most_ * kPixelBlock * depth_.padded());
    g.square = workspace<A>(most_ * kPixelBlock);
    g.row_sums = workspace<A>(most_ * kPixelBlock);
    g.totals = workspace<double>(kTotals * most_);
    if (!gradient) return;
    const int64_t rows = tiles_of(std::min(kChunkPoints, count)) * kMR;
    g.transposed = workspace<A>(most_ * kPixelBlock * depth_.tiled());
    const int64_t terms = split_terms(matching.points);
    if (terms) {
      const int64_t query =
          split::panel_terms(depth_.tiled() / split::kTileColumns, kPixelBlock, split::kTerms);
      const int64_t transposed = split::transposed_terms(depth_, terms);
      g.matching.points.terms = terms;
      split_ = workspace<split::Term>(split::point_terms(kChunkPoints, depth_, terms));
      g.split_points = workspace<split::Term>(kChunkGroups * transposed);
      g.split_queries = workspace<split::Term>(most_ * query);
      g.queries_fit = workspace<bool>(most_);
    }
    g.weights = workspace<A>(most_ * kPixelBlock * rows);
    g.query = workspace<A>(most_ * kPixelBlock * tiles_of(depth_.padded()) * kMR);
    g.point = workspace<A>(tiles_of(count) * kMR * depth_.tiled());
    std::fill_n(static_cast<A*>(g.point), tiles_of(count) * kMR * depth_.tiled(), A(0));
    if (matching.metric == Metric::kSqeuclidean) {
      g.block_columns = workspace<double>(most_ * rows);
      g.columns = zeros(count);
    }
    if (matching.points.value) {
      g.block_values = workspace<double>(most_ * rows);
      g.values = zeros(count);
    }
  }

  void all() {
    const auto weights_of_block =
        g.query_class ? run_.pair_weights_of_block : run_.weights_of_block;
    for (g.round = 0; g.round < blocks_; g.round += most_) {
      g.blocks = std::min(most_, blocks_ - g.round);
      const int64_t work = kPixelBlock * (depth_.channels + 1);
      parallel(g.blocks, work, [&](int64_t block) { run_.pack_query(g, block); });
      const int64_t count = g.matching.points.count;
      for (g.chunk = 0; g.chunk < count; g.chunk += chunk_) {
        g.points = std::min(chunk_, count - g.chunk);
        if (g.split_points) split();
        parallel_ranges(g.blocks, 1, [&](int64_t begin, int64_t end) {
          const Workspace scratch(kMC * kPixelBlock * sizeof(A) + split::weights_bytes(g.matching));
          for (int64_t block = begin; block < end; ++block)
            weights_of_block(g, block, scratch.data());
        });
        if (g.point) gather();
      }
      if (g.query) parallel(g.blocks, work, [&](int64_t block) { run_.finish_query(g, block); });
      for (int64_t block = 0; block < g.blocks; ++block)
        for (int64_t i = 0; i < kTotals; ++i) totals[i] += g.totals[kTotals * block + i];
    }
  }

  Gradient g{};
  double totals[kTotals] = {};

 private:
  void split() {
    if constexpr (!split::kBuilt) return;
    Points& points = g.matching.points;
    points.split = split_;
    points.split_from = g.chunk;
    const int64_t each = split::transposed_terms(depth_, points.terms);
    bool fits[kChunkGroups] = {};
    const int64_t groups = (g.points + kMC - 1) / kMC;
    parallel(groups, kMC * depth_.channels, [&](int64_t i) {
      const int64_t group = g.chunk / kMC + i;
      split::Term* transposed = static_cast<split::Term*>(g.split_points) + i * each;
      fits[i] = split::split_points(points, group, normalises(g.matching.metric)) &&
                split::split_transposed(points, group, transposed);
    });
    if (std::find(fits, fits + groups, false) != fits + groups) points.split = nullptr;
  }
  void gather() {
    const int64_t groups = (tiles_of(g.points) + kGatheredTiles - 1) / kGatheredTiles;
    parallel_ranges(groups, 1, [&](int64_t begin, int64_t end) {
      const Workspace scratch(kGatheredTiles * kMR * depth_.tiled() * sizeof(A) +
                              split::gather_bytes(g));
      for (int64_t group = begin; group < end; ++group) run_.gather(g, group, scratch.data());
    });
  }
  template <class V>
  V* workspace(int64_t count) {
    return workspaces_.emplace_back(count * sizeof(V)).template data<V>();
  }
  double* zeros(int64_t count) {
    double* p = workspace<double>(count);
    std::fill_n(p, count, 0.0);
    return p;
  }

  const Kernels& run_;
  Depth depth_;
  int64_t blocks_, chunk_, most_;
  void* split_ = nullptr;
  std::vector<Workspace> workspaces_;
};

}  // namespace pixelkernels::similarity
