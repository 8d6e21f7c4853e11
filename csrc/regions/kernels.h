// The contract between the host code and the regions kernels: plain structures, the same for every
// instruction set.
//
// A "table" has a row of C values per region in the order of access: [groups of 8 channels][R +
// 1][8], with 0 in the padding and in row R, that of ignored pixels. Pointers to values have the
// accumulation type: double for double features, else float.
#pragma once

#include "common/select.h"

namespace pixelkernels::regions {

struct Input {
  View features;
  Element element;
  const void* labels;  // contiguous [batch, pixels]; null: every pixel is in region 0
  Label label;
  int64_t batch, channels, pixels, regions;
  // an image is cut into blocks, the units of work and of partial results
  int64_t block_pixels, blocks;

  __attribute__((always_inline)) int64_t groups() const { return (channels + 7) / 8; }
  __attribute__((always_inline)) int64_t table() const { return groups() * (regions + 1) * 8; }
};

struct StatsArgs {
  Input input;
  bool normalize;
  // partials: tables [batch, blocks] of the first pixel of a region in the block and of the sums
  // about it, sums of squares about it [batch, blocks, R + 1, 8], counts [batch, blocks, R + 1];
  // the sums in double
  void *shift, *sums, *squares;
  int32_t* counts;
  int64_t* count;
  void *mean, *variance;
};

// gradient_i = scale_r (f_i - mean_r) + offset_r, through the normalisation if any
struct StatsBackwardArgs {
  Input input;
  bool normalize;
  View gradient;
  // tables [batch] and [batch, R + 1]; scale null: the features are not read
  const void *mean, *offset, *scale;
};

struct PullArgs {
  Input input;
  double delta;
  int64_t norm;
  const void* mean;  // tables [batch]
  // forward: partials in double, tables [batch, blocks] and [batch, blocks, R + 1]
  void *sums, *pull;
  // backward: offset as above, and scale = 2 grad_pull
  View gradient;
  const void *offset, *scale;
};

// One region; per-pixel values are [batch, pixels].
struct WeightedArgs {
  Input input;
  const void* centre;  // tables [batch]
  // forward, in double: sums of weights_i (f_i - centre), tables [batch, blocks]; sums of weights_i
  // and the least weight, or 0 if that is less, [batch, blocks]
  const void* weights;
  void* sums;
  double *totals, *least;
  // the distance to the centre, 0 where `total` [batch] is not positive
  const void* total;
  void* distance;
  bool squared;
  // backward: gradient_i = coefficient_i (f_i - centre) + weights_i direction, without the first
  // part where `coefficient` is null, and weight_gradient_i = (f_i - centre) . direction
  const void *coefficient, *direction;
  View gradient;
  void* weight_gradient;
};

struct ContrastArgs {
  Input input;
  bool normalize;
  const void* mean;  // tables [batch]
  void* scores;
};

// table row r of an image = (values_r - 2 factor_r minus_r) / count_r, without the parts that are
// null; [batch, R, C] and [batch, R]
struct PackArgs {
  Input input;
  const void *values, *minus, *factor;
  const int64_t* count;
  void* table;
};

struct Kernels {
  void (*pack)(const PackArgs&, int64_t image);
  // out [batch, R + 1] = 2 values_r / count_r
  void (*pack_scale)(const Input&, const void* values, const int64_t* count, void* out,
                     int64_t image);
  // out [batch, R, C] = factor[image] * the sum of the blocks' tables
  void (*merge_sums)(const Input&, const void* sums, const double* factor, void* out, int64_t image,
                     int64_t region);
  void (*stats_block)(const StatsArgs&, int64_t image, int64_t block);
  void (*stats_merge)(const StatsArgs&, int64_t image, int64_t region);
  void (*stats_backward)(const StatsBackwardArgs&, int64_t image, int64_t block);
  void (*pull_block)(const PullArgs&, int64_t image, int64_t block);
  void (*pull_backward)(const PullArgs&, int64_t image, int64_t block);
  void (*contrast)(const ContrastArgs&, int64_t image, int64_t block);
  void (*weighted_block)(const WeightedArgs&, int64_t image, int64_t block);
  void (*distance)(const WeightedArgs&, int64_t image, int64_t block);
  void (*weighted_backward)(const WeightedArgs&, int64_t image, int64_t block);
  void (*weighted_share)(const WeightedArgs&, int64_t image, int64_t block);
};

PK_SELECT_KERNELS(PerElement<Kernels>)

}  // namespace pixelkernels::regions
