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
  double eps;  // added to every difference
  // the pixels of each set; a row with one outside the image is absent
  const int64_t* listed[kMaxSets];
  // [sets][rows], the offset of each in a channel plane; of any pixel where absent
  const int64_t* offset;
  int64_t page_pixels;
  const int64_t* page;   // where the entries of each page begin; then where the last ones end
  const int32_t* slot;   // of each entry: set * rows + row
  const int64_t* pixel;  // of each entry

  // always inlined, because every instruction set compiles them
  __attribute__((always_inline)) bool within(int64_t one) const { return one >= 0 && one < pixels; }
  __attribute__((always_inline)) bool present(int64_t row) const {
    bool there = true;
    for (int set = 0; set < sets; ++set) there = there && within(listed[set][row]);
    return there;
  }
};

// What becomes of the rows of one image; 0 in absent ones.
struct Hinges {
  Rows rows;
  double margin;
  bool squared;
  void* distances;  // [pairs][rows]
  void* hinges;     // [pairs / 2][rows]
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
  // Rows [begin, end) of the outputs, from `parts` such sums that cover the channels. Returns how
  // many of the rows are present.
  int64_t (*finish)(const Hinges&, int64_t begin, int64_t end, const void* sums, int64_t parts);
  // The same for interleaved features, from the features.
  int64_t (*hinges_by_pixel)(const Hinges&, int64_t begin, int64_t end);
  // Channels [begin, end) of the gradient, all pixels. `scratch` holds two values per slot and one
  // per pixel of a page.
  void (*gradient)(const Gradient&, int64_t begin, int64_t end, void* scratch);
  // Pages [begin, end) of the gradient, for interleaved features; `scratch` holds a page.
  void (*gradient_by_pixel)(const Gradient&, int64_t begin, int64_t end, void* scratch);
};

PK_SELECT_KERNELS(PerElement<Kernels>)

}  // namespace pixelkernels::triplet
