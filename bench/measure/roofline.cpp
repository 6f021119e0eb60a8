#include "measure/roofline.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <memory>

#include "measure/result.h"

namespace fathom::bench {
namespace {

constexpr int kBestOf = 5;
constexpr int kRunsOfAGraph = 10;

at::TensorOptions options_on(DeviceRuntime& runtime, at::ScalarType type) {
  return at::TensorOptions().dtype(type).device(runtime.device());
}

/// Lets LibTorch choose among its attention kernels again.
struct AttentionKernels {
  ~AttentionKernels() { use(true, true); }
  static void use(bool flash, bool cudnn) {
    at::globalContext().setSDPUseFlash(flash);
    at::globalContext().setSDPUseCuDNN(cudnn);
  }
};

}  // namespace

double clock_seconds(DeviceRuntime& runtime) {
  runtime.synchronize();
  return runtime.device().is_cpu() && at::get_num_threads() == 1 ? cpu_seconds() : wall_seconds();
}

double best_ms(DeviceRuntime& runtime, const std::function<void()>& work) {
  work();
  const std::unique_ptr<DeviceGraph> graph = runtime.make_graph();
  const int runs = graph ? kRunsOfAGraph : 1;
  if (graph)
    graph->capture([&] {
      for (int i = 0; i < runs; ++i) work();
    });
  double best = 1e30;
  for (int i = 0; i < kBestOf; ++i) {
    const double start = clock_seconds(runtime);
    graph ? graph->replay() : work();
    best = std::min(best, clock_seconds(runtime) - start);
  }
  return 1e3 * best / runs;
}

at::ScalarType type_named(const std::string& precision) {
  if (precision == "bf16" || precision == "fp16_bf16" || precision == "fp8") return at::kBFloat16;
  return precision == "fp16" ? at::kHalf : at::kFloat;
}

void LeastWork::add(const LeastWork& other) {
  products.insert(products.end(), other.products.begin(), other.products.end());
  attentions.insert(attentions.end(), other.attentions.begin(), other.attentions.end());
  traffic.insert(traffic.end(), other.traffic.begin(), other.traffic.end());
}

at::Tensor Roofline::random(at::IntArrayRef sizes) const {
  return at::randn(sizes, options_on(runtime_, at::kFloat)).to(type_);
}

double Roofline::gemm_rate() {
  if (gemm_rate_ > 0) return gemm_rate_;
  const std::vector<int64_t> sizes =
      runtime_.device().is_cpu() ? std::vector<int64_t>{768, 1536} : std::vector<int64_t>{4096, 8192};
  for (const int64_t n : sizes) {
    const auto flops = 2.0 * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
    gemm_rate_ = std::max(gemm_rate_, flops / (1e-3 * product_ms(n, n, n, false, false)));
  }
  return gemm_rate_;
}

double Roofline::bandwidth() {
  if (bandwidth_ > 0) return bandwidth_;
  const bool is_cpu = runtime_.device().is_cpu();
  const int64_t numbers = int64_t{is_cpu ? 64 : 256} << 20;
  const at::Tensor from = at::ones({numbers}, options_on(runtime_, at::kFloat));
  at::Tensor to = at::zeros_like(from);
  double ms = best_ms(runtime_, [&] { to.copy_(from); });
  // A GPU's copies may be made by engines beside its multiprocessors, which are slower.
  if (!is_cpu) ms = std::min(ms, best_ms(runtime_, [&] { at::neg_out(to, from); }));
  return bandwidth_ = 2 * 4 * static_cast<double>(numbers) / (1e-3 * ms);
}

double Roofline::product_ms(int64_t rows, int64_t inner, int64_t columns, bool left_turned,
                            bool right_turned) {
  double& known = measured_[{rows, inner, columns, left_turned, right_turned}];
  if (known > 0) return known;
  const at::NoGradGuard no_grad;
  const at::Tensor left = left_turned ? random({inner, rows}).t() : random({rows, inner});
  const at::Tensor right = right_turned ? random({columns, inner}).t() : random({inner, columns});
  at::Tensor result = at::empty({rows, columns}, left.options());
  return known = best_ms(runtime_, [&] { at::mm_out(result, left, right); });
}

/// y = x Wᵀ; the input's gradient is g W, the weight's gᵀ x.
double Roofline::products_ms(const Product& product, bool trains) {
  const auto [rows, in, out, count, input_has_gradient] = product;
  double total = product_ms(rows, in, out, false, true);
  if (trains) total += product_ms(out, rows, in, true, false);
  if (trains && input_has_gradient) total += product_ms(rows, out, in, false, false);
  return static_cast<double>(count) * total;
}

/// Of the fastest of LibTorch's kernels.
double Roofline::attention_ms(const CausalAttention& attention, bool trains) {
  const std::vector<int64_t> sizes = {attention.batch, attention.heads, attention.tokens,
                                      attention.head_size};
  std::vector<at::Tensor> inputs;
  for (int i = 0; i < 3; ++i) inputs.push_back(random(sizes).set_requires_grad(trains));
  const at::Tensor gradient = random(sizes);
  const auto work = [&] {
    const at::Tensor result =
        at::scaled_dot_product_attention(inputs[0], inputs[1], inputs[2], {}, 0.0, true);
    if (trains) torch::autograd::grad({result}, inputs, {gradient});
  };
  const AttentionKernels restored;
  double best = 1e30;
  for (const bool flash : {true, false}) {
    AttentionKernels::use(flash, !flash);
    best = std::min(best, best_ms(runtime_, work));
    if (runtime_.device().is_cpu()) break;  // has the one kernel
  }
  return static_cast<double>(attention.count) * best;
}

std::map<std::string, double> Roofline::limit_ms(const LeastWork& work) {
  std::map<std::string, double> limit;
  for (const Product& product : work.products) limit["products"] += products_ms(product, work.trains);
  for (const CausalAttention& attention : work.attentions)
    limit["attention"] += attention_ms(attention, work.trains);
  for (const Traffic& traffic : work.traffic)
    limit[traffic.name] += 1e3 * std::max(traffic.bytes / bandwidth(), traffic.flops / gemm_rate());
  return limit;
}

}  // namespace fathom::bench
