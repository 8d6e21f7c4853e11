// The CPU side of the triplet operators.
#include "triplet/triplet_cpu.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <tuple>
#include <vector>

#include "common/host.h"
#include "common/permutation.h"

namespace pixelkernels {
namespace {

const TripletKernels& triplet_kernels(Element element) {
#if defined(__x86_64__)
  if (cpu_capability() >= Capability::kAvx512) return avx512::triplet_kernels(element);
  if (cpu_capability() == Capability::kAvx2) return avx2::triplet_kernels(element);
#endif
  return baseline::triplet_kernels(element);
}

// Channels go to the threads in groups, at most so many: each has distances of its own.
constexpr int64_t kMostGroups = 16;
constexpr int64_t kRowsTogether = 256, kPagesTogether = 16;
// A page's sums take about so many values.
constexpr int64_t kPagePixels = 1024, kPageValues = 8192;
// at least, where they lie side by side: those of a cache line
constexpr int64_t kChannelsTogether = 16;

bool side_by_side(const View& view) { return view.channel_stride == 1; }

void check_indices(const Tensor& features, const Tensor& sets) {
  const int64_t pixels = features.size(2) * features.size(3), *index = data<int64_t>(sets);
  int64_t largest = -1;
  for (int64_t i = 0; i < sets.numel(); ++i) largest = std::max(largest, index[i]);
  STD_TORCH_CHECK(largest < pixels, "triplet_hinge: index ", largest, " is out of range for ",
                  pixels, " pixels");
}

TripletRows rows_of(const Tensor& features, const Tensor& sets, int64_t image, bool squared,
                    double eps) {
  TripletRows rows{};
  rows.features = view_of(features);
  rows.image = image;
  rows.channels = features.size(1);
  rows.pixels = features.size(2) * features.size(3);
  rows.sets = static_cast<int>(sets.size(1));
  rows.pairs = 2 * (rows.sets - 2);
  rows.pair = rows.sets == 3 ? kThreeSets : kFourSets;
  rows.rows = sets.size(2);
  rows.eps = squared ? 0 : eps;
  rows.listed = data<int64_t>(sets) + image * rows.sets * rows.rows;
  return rows;
}

std::vector<int64_t> offsets_of(const TripletRows& rows) {
  const View& view = rows.features;
  const bool flat = view.pixel_stride == 1 && view.row_length == rows.pixels;
  std::vector<int64_t> offset(rows.sets * rows.rows);
  for (size_t slot = 0; slot < offset.size(); ++slot) {
    const int64_t pixel = std::max<int64_t>(rows.listed[slot], 0);
    offset[slot] = flat ? pixel
                        : pixel / view.row_length * view.row_stride +
                              pixel % view.row_length * view.pixel_stride;
  }
  return offset;
}

// The entries of one image's rows.
class Entries {
 public:
  Entries(const TripletRows& rows, int64_t page_pixels) {
    const int64_t pages = (rows.pixels + page_pixels - 1) / page_pixels;
    std::vector<char> there(rows.rows, 1);
    for (int set = 0; set < rows.sets; ++set)
      for (int64_t r = 0; r < rows.rows; ++r) there[r] &= rows.listed[set * rows.rows + r] >= 0;
    const auto for_entries = [&](const auto& body) {
      for (int set = 0; set < rows.sets; ++set)
        for (int64_t r = 0; r < rows.rows; ++r)
          if (there[r]) body(set * rows.rows + r, rows.listed[set * rows.rows + r]);
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

  void enter(TripletRows& rows, int64_t page_pixels) const {
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

int64_t group_of(const TripletRows& rows) {
  const int64_t even = (rows.channels + kMostGroups - 1) / kMostGroups;
  return std::max<int64_t>(even, side_by_side(rows.features) ? kChannelsTogether : 1);
}
int64_t groups_of(const TripletRows& rows) {
  const int64_t each = group_of(rows);
  return rows.pixels ? (rows.channels + each - 1) / each : 0;
}

// body(group, begin, end): channels [begin, end)
template <class Body>
void for_groups(const TripletRows& rows, const Body& body) {
  const int64_t each = group_of(rows);
  torch::stable::parallel_for(0, groups_of(rows), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i)
      body(i, i * each, std::min((i + 1) * each, rows.channels));
  });
}

std::tuple<Tensor, Tensor> triplet_hinges(Tensor features, Tensor sets, double margin, bool squared,
                                          double eps) {
  check_indices(features, sets);
  const Element element = element_of(features);
  const TripletKernels& run = triplet_kernels(element);
  const int64_t images = sets.size(0), hinges = sets.size(1) - 2, all = sets.size(2);
  const int64_t blocks = (all + kRowsTogether - 1) / kRowsTogether;
  const ScalarType type = accumulate_type(element);
  Tensor result = output(features, {images, hinges, all}, type);
  Tensor distances = output(features, {images, 2 * hinges, all}, type);
  with_value(element, [&](auto zero) {
    using A = decltype(zero);
    // rows [begin, end) of an image, whose squared distances lie in parts that add up
    const auto finish = [&](const TripletRows& rows, int64_t begin, int64_t end, const A* sums,
                            int64_t parts) {
      A* distance = data<A>(distances) + rows.image * rows.pairs * all;
      A* hinge = data<A>(result) + rows.image * hinges * all;
      for (int64_t r = begin; r < end; ++r) {
        bool there = true;
        for (int set = 0; set < rows.sets; ++set) there = there && rows.listed[set * all + r] >= 0;
        for (int p = 0; p < rows.pairs; ++p) {
          double sum = 0;
          for (int64_t part = 0; there && part < parts; ++part)
            sum += sums[(part * rows.pairs + p) * all + r];
          distance[p * all + r] = static_cast<A>(squared ? sum : std::sqrt(sum));
        }
        for (int64_t h = 0; h < hinges; ++h) {
          const A* own = distance + 2 * h * all + r;
          const A over = own[0] - own[all] + static_cast<A>(margin);
          // NaN stays
          hinge[h * all + r] = !there || over < 0 ? A(0) : over;
        }
      }
    };
    if (side_by_side(view_of(features))) {
      const int64_t work = sets.size(1) * features.size(1) * kRowsTogether;
      parallel(images * blocks, work, [&](int64_t i) {
        const TripletRows rows = rows_of(features, sets, i / blocks, squared, eps);
        const int64_t begin = i % blocks * kRowsTogether;
        const int64_t end = std::min(begin + kRowsTogether, all);
        A* sums = data<A>(distances) + rows.image * rows.pairs * all;
        run.distances_by_pixel(rows, begin, end, sums);
        finish(rows, begin, end, sums, 1);
      });
      return;
    }
    for (int64_t b = 0; b < images; ++b) {
      TripletRows rows = rows_of(features, sets, b, squared, eps);
      const std::vector<int64_t> offset = offsets_of(rows);
      rows.offset = offset.data();
      const int64_t each = rows.pairs * all, groups = groups_of(rows);
      std::vector<A> sums(groups * each, A(0));
      for_groups(rows, [&](int64_t group, int64_t begin, int64_t end) {
        std::vector<A> scratch(rows.sets * all);
        run.distances(rows, begin, end, sums.data() + group * each, scratch.data());
      });
      parallel(blocks, groups * rows.pairs * kRowsTogether, [&](int64_t i) {
        const int64_t begin = i * kRowsTogether, end = std::min(begin + kRowsTogether, all);
        finish(rows, begin, end, sums.data(), groups);
      });
    }
  });
  return {result, distances};
}

Tensor triplet_hinges_backward(Tensor grad_hinges, Tensor features, Tensor sets, Tensor distances,
                               double margin, bool squared, double eps) {
  check_indices(features, sets);
  const Element element = element_of(features);
  const TripletKernels& run = triplet_kernels(element);
  const int64_t images = sets.size(0), hinges = sets.size(1) - 2;
  Tensor gradient = unready_like(features);
  const View view = view_of(gradient);
  const bool by_pixel = side_by_side(view_of(features)) && side_by_side(view);
  with_value(element, [&](auto zero) {
    using A = decltype(zero);
    for (int64_t b = 0; b < images; ++b) {
      const int64_t channels = std::max<int64_t>(features.size(1), 1);
      const int64_t together =
          by_pixel ? std::max<int64_t>(kPageValues / channels, 1) : kPagePixels;
      TripletRows rows = rows_of(features, sets, b, squared, eps);
      const Entries entries(rows, together);
      entries.enter(rows, together);
      const std::vector<int64_t> offset = by_pixel ? std::vector<int64_t>() : offsets_of(rows);
      rows.offset = offset.data();
      const A* distance = data<A>(distances) + b * rows.pairs * rows.rows;
      const A* grad = data<A>(grad_hinges) + b * hinges * rows.rows;
      std::vector<A> factor(rows.pairs * rows.rows);
      for (int p = 0; p < rows.pairs; ++p)
        for (int64_t r = 0; r < rows.rows; ++r) {
          const A* own = distance + p / 2 * 2 * rows.rows + r;
          const bool active = own[0] - own[rows.rows] + static_cast<A>(margin) >= 0;
          const A mine = p % 2 ? own[rows.rows] : own[0];
          const A rise = squared ? A(2) : mine == 0 ? A(0) : 1 / mine;
          const A slope = active ? grad[p / 2 * rows.rows + r] : A(0);
          factor[p * rows.rows + r] = p % 2 ? -slope * rise : slope * rise;
        }
      const TripletGradient g{rows, factor.data(), view, past_caches(gradient)};
      const int64_t size = static_cast<int64_t>(gradient.element_size());
      const auto make_ready = [&](int64_t offset, int64_t values) {
        ready(data<char>(gradient) + (b * view.batch_stride + offset) * size, values * size);
      };
      if (by_pixel) {
        const int64_t page = rows.page_pixels * rows.channels;
        parallel((entries.pages() + kPagesTogether - 1) / kPagesTogether, kPagesTogether * page,
                 [&](int64_t i) {
                   const int64_t begin = i * kPagesTogether;
                   const int64_t end = std::min(begin + kPagesTogether, entries.pages());
                   const int64_t last = std::min(end * page, rows.pixels * rows.channels);
                   make_ready(begin * page, last - begin * page);
                   std::vector<A> scratch(page);
                   run.gradient_by_pixel(g, begin, end, scratch.data());
                 });
        continue;
      }
      for_groups(rows, [&](int64_t, int64_t begin, int64_t end) {
        std::vector<A> scratch(2 * rows.sets * rows.rows + kPagePixels);
        for (int64_t channel = begin; channel < end; ++channel)
          make_ready(channel * view.channel_stride, rows.pixels);
        run.gradient(g, begin, end, scratch.data());
      });
    }
  });
  return gradient;
}

// Of eight pixels, those whose bits are set, in order.
struct Chosen {
  uint8_t place[256][8] = {}, count[256] = {};
  constexpr Chosen() {
    for (int bits = 0; bits < 256; ++bits)
      for (uint8_t k = 0; k < 8; ++k)
        if (bits >> k & 1) place[bits][count[bits]++] = k;
  }
};
constexpr Chosen kChosen;

// Lists the True pixels, without a branch that depends on them; returns their number. `place` has
// room for eight more.
int64_t list_inside(const uint8_t* inside, int64_t pixels, int32_t* place) {
  constexpr uint64_t kGatherBits = 0x0102040810204080;
  int64_t count = 0;
  for (int64_t i = 0; i < pixels; i += 8) {
    uint64_t eight = 0;
    std::memcpy(&eight, inside + i, std::min<int64_t>(8, pixels - i));
    const int bits = static_cast<int>(eight * kGatherBits >> 56);
    for (int k = 0; k < 8; ++k) place[count + k] = static_cast<int32_t>(i) + kChosen.place[bits][k];
    count += kChosen.count[bits];
  }
  return count;
}

// The True pixels are listed once for all seeds.
Tensor draw_pixels(Tensor mask, Tensor seeds, int64_t num) {
  STD_TORCH_CHECK(mask.is_contiguous() && mask.scalar_type() == ScalarType::Bool,
                  "pixelkernels: the mask must be contiguous, in bool");
  const int64_t images = mask.size(0), pixels = mask.size(1) * mask.size(2), sets = seeds.size(0);
  Tensor drawn = output(seeds, {images, sets, num}, ScalarType::Long);
  torch::stable::parallel_for(0, images, 1, [&](int64_t begin, int64_t end) {
    const std::unique_ptr<int32_t[]> place(new int32_t[pixels + 8]);
    for (int64_t image = begin; image < end; ++image) {
      const int64_t count = list_inside(data<uint8_t>(mask) + image * pixels, pixels, place.get());
      for (int64_t set = 0; set < sets; ++set) {
        const uint64_t seed = static_cast<uint64_t>(data<int64_t>(seeds)[set]);
        const Permutation permutation(seed, image, count);
        int64_t* out = data<int64_t>(drawn) + (image * sets + set) * num;
        const int64_t some = std::min(count, num);
        permutation.first(some, [&](int64_t i, uint32_t rank) { out[i] = place[rank]; });
        std::fill(out + some, out + num, -1);
      }
    }
  });
  return drawn;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("triplet_hinges", TORCH_BOX(&triplet_hinges));
  m.impl("triplet_hinges_backward", TORCH_BOX(&triplet_hinges_backward));
  m.impl("draw_pixels", TORCH_BOX(&draw_pixels));
}

}  // namespace pixelkernels
