// The CPU side of the operators on centroids and on label maps, which touch no features.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>
#include <vector>

#include "common/host.h"

namespace pixelkernels {
namespace {

int64_t label_at(const void* labels, Label type, int64_t i) {
  return with_label(
      type, [&](auto like) -> int64_t { return static_cast<const decltype(like)*>(labels)[i]; });
}

// One centroid against all others of its image: its share of the push term and its whole gradient,
// in which each pair stands for both of its orders.
template <class A>
double push_of(const A* mean, const bool* present, int64_t regions, int64_t channels, int64_t own,
               double delta, int64_t norm, A* gradient) {
  std::fill_n(gradient, channels, A{0});
  if (!present[own]) return 0;
  const A* a = mean + own * channels;
  double push = 0;
  for (int64_t other = 0; other < regions; ++other) {
    if (other == own || !present[other]) continue;
    const A* b = mean + other * channels;
    double distance = 0;
    for (int64_t c = 0; c < channels; ++c) {
      const double d = static_cast<double>(a[c]) - static_cast<double>(b[c]);
      distance += norm == 1 ? std::abs(d) : d * d;
    }
    if (norm == 2) distance = std::sqrt(distance);
    const double hinge = 2 * delta - distance;
    if (hinge <= 0) continue;
    push += hinge * hinge;
    const double factor = norm == 1 ? 4 * hinge : distance == 0 ? 0 : 4 * hinge / distance;
    for (int64_t c = 0; c < channels; ++c) {
      const double d = static_cast<double>(a[c]) - static_cast<double>(b[c]);
      gradient[c] -= static_cast<A>(factor * (norm == 1 ? (d > 0) - (d < 0) : d));
    }
  }
  return push;
}

std::tuple<Tensor, Tensor> region_push(Tensor mean, Tensor present, double delta, int64_t norm) {
  const int64_t batch = mean.size(0), regions = mean.size(1), channels = mean.size(2);
  STD_TORCH_CHECK(mean.is_contiguous() && present.is_contiguous(),
                  "region_push: expected contiguous tensors");
  Tensor push = output(mean, {batch}, mean.scalar_type()), gradient = output_like(mean);
  std::vector<double> rows(batch * regions);
  const auto run = [&](auto* values, auto* out, auto* total) {
    parallel(batch * regions, regions * channels, [&](int64_t i) {
      const int64_t image = i / regions;
      rows[i] = push_of(values + image * regions * channels, data<bool>(present) + image * regions,
                        regions, channels, i % regions, delta, norm, out + i * channels);
    });
    for (int64_t image = 0; image < batch; ++image) {
      double sum = 0;
      for (int64_t region = 0; region < regions; ++region) sum += rows[image * regions + region];
      total[image] = static_cast<std::decay_t<decltype(*total)>>(sum);
    }
  };
  if (mean.scalar_type() == ScalarType::Double)
    run(data<double>(mean), data<double>(gradient), data<double>(push));
  else
    run(data<float>(mean), data<float>(gradient), data<float>(push));
  return {push, gradient};
}

// Bits that sort as the value does, NaN above all.
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

// Score and index in one integer, so that ties fall to the larger index by themselves.
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
  // runs of one label are long, so most pixels cost one comparison
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
  m.impl("region_push", TORCH_BOX(&region_push));
  m.impl("hard_pixels", TORCH_BOX(&hard_pixels));
  m.impl("compact_labels", TORCH_BOX(&compact_labels));
}

}  // namespace pixelkernels
