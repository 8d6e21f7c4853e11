// The push term between region means.
#include "regions/cuda/weights.cuh"

namespace pixelkernels::regions::cuda {
namespace {

constexpr int kPushThreads = 256;
constexpr int kPushWarps = kPushThreads / kWarp;

struct PushArgs {
  const float* mean;    // [B, R, C]
  const bool* present;  // [B, R]
  int regions, channels;
  float delta;
  int norm;
  float *partial, *gradient;  // [B, R] and [B, R, C]
};

// One block per region a; each warp takes every n-th region b and has its own sum of h_ab u_ab.
__global__ void __launch_bounds__(kPushThreads) region_push_kernel(const PushArgs a) {
  extern __shared__ uint4 shared[];
  __shared__ float losses[kPushWarps];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int64_t first = blockIdx.x / a.regions * int64_t{a.regions};  // the image's first region
  const int own = static_cast<int>(blockIdx.x - first);
  const float* means = a.mean + first * a.channels;
  const float* mine = means + int64_t{own} * a.channels;
  float* sums = reinterpret_cast<float*>(shared);
  float* sum = sums + int64_t{warp} * a.channels;
  for (int c = lane; c < a.channels; c += kWarp) sum[c] = 0.0f;

  float loss = 0.0f;
  const int regions = a.present[first + own] ? a.regions : 0;
  for (int b = warp; b < regions; b += warps) {
    if (b == own || !a.present[first + b]) continue;
    const float* other = means + int64_t{b} * a.channels;
    float distance = 0.0f;
    for (int c = lane; c < a.channels; c += kWarp) {
      const float d = mine[c] - other[c];
      distance += a.norm == 1 ? fabsf(d) : d * d;
    }
    for (int apart = kWarp / 2; apart > 0; apart /= 2)
      distance += __shfl_xor_sync(kWholeWarp, distance, apart);
    if (a.norm == 2) distance = sqrtf(distance);
    const float hinge = 2.0f * a.delta - distance;
    if (hinge <= 0.0f) continue;
    loss += hinge * hinge;
    const float weight = a.norm == 1 ? hinge : distance == 0.0f ? 0.0f : hinge / distance;
    for (int c = lane; c < a.channels; c += kWarp) {
      const float d = mine[c] - other[c];
      sum[c] += weight * (a.norm == 1 ? sign(d) : d);
    }
  }
  if (lane == 0) losses[warp] = loss;
  __syncthreads();
  for (int c = threadIdx.x; c < a.channels; c += blockDim.x) {
    float total = 0.0f;
    for (int w = 0; w < warps; ++w) total += sums[int64_t{w} * a.channels + c];
    a.gradient[(first + own) * a.channels + c] = -4.0f * total;
  }
  if (threadIdx.x == 0) {
    float total = 0.0f;
    for (int w = 0; w < warps; ++w) total += losses[w];
    a.partial[first + own] = total;
  }
}

__global__ void __launch_bounds__(kPushThreads)
    sum_push_kernel(const float* partial, int regions, float* push) {
  __shared__ float parts[kPushThreads];
  float sum = 0.0f;
  for (int r = threadIdx.x; r < regions; r += kPushThreads)
    sum += partial[blockIdx.x * int64_t{regions} + r];
  parts[threadIdx.x] = sum;
  for (int half = kPushThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) parts[threadIdx.x] += parts[threadIdx.x + half];
  }
  if (threadIdx.x == 0) push[blockIdx.x] = parts[0];
}

}  // namespace

void push_and_gradient(const Device& device, const float* mean, const bool* present, int64_t batch,
                       int regions, int channels, float delta, int norm, float* push,
                       float* gradient) {
  float* partial = device.workspace<float>(batch * regions);
  const PushArgs args = {mean, present, regions, channels, delta, norm, partial, gradient};
  const int64_t row = int64_t{channels} * sizeof(float);
  int warps = kPushWarps;
  while (warps > 1 && warps * row > kDefaultShared) warps /= 2;
  launch(device, region_push_kernel, batch * regions, dim3(warps * kWarp), warps * row, args);
  launch(device, sum_push_kernel, batch, dim3(kPushThreads), 0, partial, regions, push);
}

}  // namespace pixelkernels::regions::cuda
