#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>
#include <torch/library.h>

#include "kernels/cpu_vector.h"
#include "kernels/keyed_dropout.h"
#include "tensor/random_keys.h"

namespace fathom::kernels {
namespace {

struct DropoutRule {
  uint32_t threshold;
  double scale;
};

/// Elements [begin, end) of one sample.
template <typename T>
FATHOM_CPU_CLONES void drop(const T* x, T* y, SampleKey key, DropoutRule rule, uint32_t begin, uint32_t end) {
  using C = Compute<T>;
  const C scale = static_cast<C>(rule.scale);
  for (uint32_t i = begin; i < end; ++i)
    store(y[i], load(x[i]) * (keyed_bits(key, i) >= rule.threshold ? scale : C(0)));
}

at::Tensor apply_cpu(const at::Tensor& x_in, const at::Tensor& key_B_in, int64_t stream, double probability) {
  const auto x = x_in.contiguous(), key_B = key_B_in.contiguous();
  auto y = at::empty_like(x);
  const int64_t samples = x.size(0), size = x.numel() / std::max<int64_t>(1, samples);
  const int64_t chunk = 16384, chunks = (size + chunk - 1) / chunk;
  const DropoutRule rule = {static_cast<uint32_t>(std::ldexp(probability, 32)), 1.0 / (1.0 - probability)};
  dispatch_floating(x.scalar_type(), "keyed_dropout", [&]<typename T>(T) {
    at::parallel_for(0, samples * chunks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t sample = task / chunks, first = task % chunks * chunk;
        drop(x.const_data_ptr<T>() + sample * size, y.mutable_data_ptr<T>() + sample * size,
             sample_key(key_B.const_data_ptr<int64_t>()[sample], stream), rule, static_cast<uint32_t>(first),
             static_cast<uint32_t>(std::min(size, first + chunk)));
      }
    });
  });
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(fathom, CPU, library) {
  library.impl("keyed_dropout", apply_cpu);
}

}  // namespace fathom::kernels
