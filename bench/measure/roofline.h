// What this device can do at best, measured here and now: rates of matrix products and of memory, and from
// them the least time that a piece of work can take. N rows, B batch, H heads, T tokens, E head size.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "tensor/device_runtime.h"

namespace fathom::bench {

/// [rows, in] · [in, out], `count` times. Training adds the products for the weight's gradient and, unless
/// nobody asks for it, the input's.
struct Product {
  int64_t rows = 0;
  int64_t in = 0;
  int64_t out = 0;
  int64_t count = 1;
  bool input_has_gradient = true;
};

/// Causal attention of [B, H, T, E], `count` times.
struct CausalAttention {
  int64_t batch = 0;
  int64_t heads = 0;
  int64_t tokens = 0;
  int64_t head_size = 0;
  int64_t count = 1;
};

/// What moves `bytes` of memory and may compute as well.
struct Traffic {
  std::string name;
  double bytes = 0;
  double flops = 0;
};

/// All that a piece of work must do. Traffic of one name is one part of the limit.
struct LeastWork {
  bool trains = false;
  std::vector<Product> products;
  std::vector<CausalAttention> attentions;
  std::vector<Traffic> traffic;

  void add(const LeastWork& other);
};

/// Milliseconds of one run of `work`: on a GPU on the device alone, as a graph of several runs where it can
/// be recorded; on a CPU by `clock_seconds`. The fastest of a few.
double best_ms(DeviceRuntime& runtime, const std::function<void()>& work);

/// The clock of figures: CPU seconds on a CPU with one thread, so that other work on the machine counts
/// little, otherwise wall-clock seconds. Waits for the device.
double clock_seconds(DeviceRuntime& runtime);

/// Of "fp32", "bf16" or "fp16"; under "fp16_bf16" of states, under "fp8" of what stays in more than 8 bits.
at::ScalarType type_named(const std::string& precision);

/// Rates are measured once, when they are first asked for. One thread.
class Roofline {
 public:
  /// `type`: of products' factors and of activations.
  Roofline(DeviceRuntime& runtime, at::ScalarType type) : runtime_(runtime), type_(type) {}

  /// FLOP/s of the fastest of a few large square products.
  double gemm_rate();
  /// Bytes/s of a copy that no cache holds, read and written bytes together.
  double bandwidth();
  /// Best milliseconds for each part: "products", "attention", and the names of all traffic, each the longer
  /// of its bytes at `bandwidth` and its operations at `gemm_rate`.
  std::map<std::string, double> limit_ms(const LeastWork& work);

 private:
  double product_ms(int64_t rows, int64_t inner, int64_t columns, bool left_turned, bool right_turned);
  double products_ms(const Product& product, bool trains);
  double attention_ms(const CausalAttention& attention, bool trains);
  at::Tensor random(at::IntArrayRef sizes) const;

  DeviceRuntime& runtime_;
  at::ScalarType type_;
  double gemm_rate_ = 0, bandwidth_ = 0;
  std::map<std::tuple<int64_t, int64_t, int64_t, bool, bool>, double> measured_;
};

}  // namespace fathom::bench
