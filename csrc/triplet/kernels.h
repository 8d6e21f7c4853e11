// What the host code hands to the triplet kernels of an instruction set. Torch-free. Pointers to
// values have the accumulation type: double for double features, else float.
#pragma once

#include "common/select.h"

namespace pixelkernels::triplet {

constexpr int kMaxSets = 4, kMaxPairs = 4;

// Two sets of pixels, between whose rows distances are computed.
struct SetPair {
  int one, other;
};
// for every hinge the pair with the positive, then the pair with the negative
constexpr SetPair kThreeSets[] = {{0, 1}, {0, 2}};
constexpr SetPair kFourSets[] = {{0, 1}, {0, 2}, {2, 3}, {2, 1}};

// The rows of one image. For gradients, a present row has an entry per set, and the entries are
// sorted by page: a fixed number of adjacent pixels.
struct Rows {
  View features;
  int64_t image, channels, pixels;
  int sets, pairs;
  const SetPair* pair;
  int64_t rows;
  double eps;             // added to every difference
  const int64_t* listed;  // [sets][rows], the pixels; a row with a negative one is absent
  const int64_t* offset;  // the offset of each in a channel plane; of any pixel where absent
  int64_t page_pixels;
  const int64_t* page;   // where the entries of each page begin; then where the last ones end
  const int32_t* slot;   // of each entry: set * rows + row
  const int64_t* pixel;  // of each entry
};

struct Gradient {
  Rows rows;
  const void* factor;  // [pairs][rows], of the differences in the gradient
  View gradient;
  bool past_caches;
};

struct Kernels {
  // sums [pairs][rows] += the squared differences in channels [begin, end); `scratch` holds a value
  // for each slot
  void (*distances)(const Rows&, int64_t begin, int64_t end, void* sums, void* scratch);
  // rows [begin, end) of the sums over all channels, for interleaved features; 0 if absent
  void (*distances_by_pixel)(const Rows&, int64_t begin, int64_t end, void* sums);
  // Channels [begin, end) of the gradient, all pixels. `scratch` holds two values per slot and one
  // per pixel of a page.
  void (*gradient)(const Gradient&, int64_t begin, int64_t end, void* scratch);
  // Pages [begin, end) of the gradient, for interleaved features; `scratch` holds a page.
  void (*gradient_by_pixel)(const Gradient&, int64_t begin, int64_t end, void* scratch);
};

PK_SELECT_KERNELS(PerElement<Kernels>)

}  // namespace pixelkernels::triplet
