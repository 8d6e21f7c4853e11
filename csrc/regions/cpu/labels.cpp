// The CPU side of the operators on label maps.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>
#include <vector>

#include "common/outputs.h"
#include "common/parallel.h"

namespace pixelkernels::regions {
namespace {

int64_t label_at(const void* labels, Label type, int64_t i) {
  return with_label(
      type, [&](auto like) -> int64_t { return static_cast<const decltype(like)*>(labels)[i]; });
}

// Bits in the order of the values, NaN above all.
uint32_t sortable(float x) {
  if (x != x) return ~uint32_t{0};
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits >> 31 ? ~bits : bits | uint32_t{1} << 31;
}
uint64_t sortable(double x) {
  if (x != x) return ~uint64_t{0};
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits >> 63 ? ~bits : bits | uint64_t{1} << 63;
}

// Score and index in one integer, so that the tie-break is the larger index.
template <class A, class Key>
void mine_image(const A* scores, const void* labels, Label type, int64_t image, int64_t pixels,
                uint8_t* out) {
  int64_t counts[2] = {};
  for (int64_t i = 0; i < pixels; ++i) {
    const int64_t label = label_at(labels, type, image * pixels + i);
    const bool either = label == 0 || label == 1;
    out[i] = either ? static_cast<uint8_t>(2 * label) : 4;
    if (either) ++counts[label];
  }
  const int64_t keep = std::min(counts[0], counts[1]);
  if (keep == 0) return;
  const uint8_t larger = counts[1] > counts[0] ? 2 : 0;
  std::vector<Key> keys;
  keys.reserve(counts[larger / 2]);
  constexpr int kIndexBits = sizeof(Key) * 4;
  for (int64_t i = 0; i < pixels; ++i) {
    if (out[i] == 4) continue;
    if (out[i] != larger) {
      out[i] += 1;
      continue;
    }
    const A score = scores[i] == 0 ? A{-100} : scores[i];
    keys.push_back(static_cast<Key>(sortable(score)) << kIndexBits | static_cast<Key>(i));
  }
  std::nth_element(keys.begin(), keys.begin() + (keep - 1), keys.end(), std::greater<Key>());
  for (int64_t k = 0; k < keep; ++k)
    out[static_cast<int64_t>(keys[k] & ((Key{1} << kIndexBits) - 1))] += 1;
}

Tensor hard_pixels(Tensor scores, Tensor labels) {
  const int64_t batch = scores.size(0), pixels = scores.size(1);
  STD_TORCH_CHECK(scores.is_contiguous() && pixels < int64_t{1} << 32,
                  "hard_pixels: expected contiguous scores");
  const Label type = label_of(labels);
  Tensor out = output(scores, {batch, pixels}, ScalarType::Byte);
  parallel(batch, pixels * 16, [&](int64_t image) {
    uint8_t* mined = data<uint8_t>(out) + image * pixels;
    if (scores.scalar_type() == ScalarType::Double)
      mine_image<double, unsigned __int128>(data<double>(scores) + image * pixels, data(labels),
                                            type, image, pixels, mined);
    else
      mine_image<float, uint64_t>(data<float>(scores) + image * pixels, data(labels), type, image,
                                  pixels, mined);
  });
  return out;
}

int64_t compact_image(const void* labels, Label type, int64_t begin, int64_t pixels,
                      const std::vector<int64_t>& ignore, int64_t* out) {
  const auto ignored = [&](int64_t label) {
    return std::find(ignore.begin(), ignore.end(), label) != ignore.end();
  };
  // runs of equal labels are long, so most pixels cost one comparison
  std::vector<int64_t> distinct;
  for (int64_t i = 0; i < pixels; ++i) {
    const int64_t label = label_at(labels, type, begin + i);
    if (i == 0 || label != label_at(labels, type, begin + i - 1)) distinct.push_back(label);
  }
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  distinct.erase(std::remove_if(distinct.begin(), distinct.end(), ignored), distinct.end());
  for (int64_t i = 0; i < pixels; ++i) {
    const int64_t label = label_at(labels, type, begin + i);
    if (i > 0 && label == label_at(labels, type, begin + i - 1)) {
      out[i] = out[i - 1];
      continue;
    }
    const auto found = std::lower_bound(distinct.begin(), distinct.end(), label);
    out[i] = found != distinct.end() && *found == label ? found - distinct.begin() : -1;
  }
  return static_cast<int64_t>(distinct.size());
}

std::tuple<Tensor, Tensor> compact_labels(Tensor labels, std::vector<int64_t> ignore) {
  const Label type = label_of(labels);
  const int64_t batch = labels.size(0), pixels = labels.size(1) * labels.size(2);
  Tensor out = output(labels, {batch, labels.size(1), labels.size(2)}, ScalarType::Long);
  Tensor counts = output(labels, {batch}, ScalarType::Long);
  parallel(batch, pixels * 4, [&](int64_t image) {
    data<int64_t>(counts)[image] = compact_image(data(labels), type, image * pixels, pixels, ignore,
                                                 data<int64_t>(out) + image * pixels);
  });
  return {out, counts};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(pixelkernels, CPU, m) {
  m.impl("hard_pixels", TORCH_BOX(&hard_pixels));
  m.impl("compact_labels", TORCH_BOX(&compact_labels));
}

}  // namespace pixelkernels::regions
