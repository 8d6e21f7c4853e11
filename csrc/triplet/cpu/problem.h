// Cuts the triplets of an image into tasks for threads and kernels.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "common/outputs.h"
#include "common/parallel.h"
#include "triplet/kernels.h"

namespace pixelkernels::triplet {

// At most so many groups of channels: each has its own partial distances.
constexpr int64_t kMaxChannelGroups = 16;
constexpr int64_t kRowBlock = 256, kPageBlock = 16;
// The sums of a page take about so many values.
constexpr int64_t kPagePixels = 1024, kPageValues = 8192;
// at least, for interleaved features: the channels of a cache line
constexpr int64_t kChannelBlock = 16;

inline bool side_by_side(const View& view) { return view.channel_stride == 1; }

// Sets of pixels [B, K] each: three, or with `fourth` four.
struct Sets {
  Tensor first, second, third;
  std::optional<Tensor> fourth;

  int count() const { return fourth ? 4 : 3; }
  int64_t hinges() const { return count() - 2; }
  int64_t images() const { return first.size(0); }
  int64_t rows() const { return first.size(1); }
  const int64_t* of(int set, int64_t image) const {
    const Tensor& one = set == 0 ? first : set == 1 ? second : set == 2 ? third : *fourth;
    STD_TORCH_CHECK(one.stride(1) == 1 || rows() < 2, "pixelkernels: sets must be contiguous");
    return data<int64_t>(one) + image * one.stride(0);
  }
};

inline Rows rows_of(const Tensor& features, const Sets& sets, int64_t image, bool squared,
                    double eps) {
  Rows rows{};
  rows.features = view_of(features);
  rows.image = image;
  rows.channels = features.size(1);
  rows.pixels = features.size(2) * features.size(3);
  rows.sets = sets.count();
  rows.pairs = 2 * (rows.sets - 2);
  rows.pair = rows.sets == 3 ? kThreeSets : kFourSets;
  rows.rows = sets.rows();
  rows.eps = squared ? 0 : eps;
  for (int set = 0; set < rows.sets; ++set) rows.listed[set] = sets.of(set, image);
  return rows;
}

inline std::vector<int64_t> offsets_of(const Rows& rows) {
  const View& view = rows.features;
  const bool flat = view.pixel_stride == 1 && view.row_length == rows.pixels;
  std::vector<int64_t> offset;
  offset.reserve(rows.sets * rows.rows);
  for (int set = 0; set < rows.sets; ++set)
    for (int64_t r = 0; r < rows.rows; ++r) {
      const int64_t listed = rows.listed[set][r], pixel = rows.within(listed) ? listed : 0;
      offset.push_back(flat ? pixel
                            : pixel / view.row_length * view.row_stride +
                                  pixel % view.row_length * view.pixel_stride);
    }
  return offset;
}

// The entries of one image's rows.
class Entries {
 public:
  Entries(const Rows& rows, int64_t page_pixels) {
    const int64_t pages = (rows.pixels + page_pixels - 1) / page_pixels;
    std::vector<char> there(rows.rows);
    for (int64_t r = 0; r < rows.rows; ++r) there[r] = rows.present(r);
    const auto for_entries = [&](const auto& body) {
      for (int set = 0; set < rows.sets; ++set)
        for (int64_t r = 0; r < rows.rows; ++r)
          if (there[r]) body(set * rows.rows + r, rows.listed[set][r]);
    };
    page_.assign(pages + 1, 0);
    for_entries([&](int64_t, int64_t pixel) { ++page_[pixel / page_pixels + 1]; });
    for (int64_t page = 0; page < pages; ++page) page_[page + 1] += page_[page];
    slot_.resize(page_[pages]);
    pixel_.resize(page_[pages]);
    std::vector<int64_t> next = page_;
    for_entries([&](int64_t slot, int64_t pixel) {
      const int64_t to = next[pixel / page_pixels]++;
      slot_[to] = static_cast<int32_t>(slot);
      pixel_[to] = pixel;
    });
  }

  void enter(Rows& rows, int64_t page_pixels) const {
    rows.page_pixels = page_pixels;
    rows.page = page_.data();
    rows.slot = slot_.data();
    rows.pixel = pixel_.data();
  }
  int64_t pages() const { return static_cast<int64_t>(page_.size()) - 1; }

 private:
  std::vector<int32_t> slot_;
  std::vector<int64_t> pixel_, page_;
};

inline int64_t group_of(const Rows& rows) {
  const int64_t even = (rows.channels + kMaxChannelGroups - 1) / kMaxChannelGroups;
  return std::max<int64_t>(even, side_by_side(rows.features) ? kChannelBlock : 1);
}
inline int64_t groups_of(const Rows& rows) {
  const int64_t each = group_of(rows);
  return rows.pixels ? (rows.channels + each - 1) / each : 0;
}

// body(image): one after the other, if there are channels enough for the threads, else in parallel
template <class Body>
void for_images(const Tensor& features, const Body& body) {
  constexpr int64_t kFewChannels = 4;
  const int64_t images = features.size(0), channels = features.size(1);
  if (channels > kFewChannels)
    for (int64_t image = 0; image < images; ++image) body(image);
  else
    parallel(images, channels * features.size(2) * features.size(3), body);
}

// body(group, begin, end): channels [begin, end)
template <class Body>
void for_groups(const Rows& rows, const Body& body) {
  const int64_t each = group_of(rows);
  parallel_ranges(groups_of(rows), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      body(i, i * each, std::min((i + 1) * each, rows.channels));
  });
}

}  // namespace pixelkernels::triplet
