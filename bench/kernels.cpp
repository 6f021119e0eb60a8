// How near are the operations of src/kernels to what this device can do: to the bandwidth of its memory where
// they move numbers, to the rate of its matrix products where they multiply?
//
//   bench_kernels --device cpu|cuda [--precision fp32|bf16|fp16] [--rows N] [--dim D] [--only NAME] [--json]
//
// Each operation alone, on random rows of a decoder (heads of 64) or maps of a Swin (14 × 14 places in
// shifted windows of 7, heads of 32), forward ("forward") and with its backward pass ("training"): the
// fastest of five runs, on a GPU from a graph, so without the host. Bytes are those that a fused operation
// has to read and to write once. Both rates are measured in the same run. One JSON line an operation and
// pass.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "kernels/embedding.h"
#include "kernels/fp8_linear.h"
#include "kernels/kernel.h"
#include "kernels/keyed_dropout.h"
#include "kernels/layer_norm.h"
#include "kernels/linear.h"
#include "kernels/merged_layer_norm.h"
#include "kernels/residual_layer_norm.h"
#include "kernels/residual_rms_norm.h"
#include "kernels/rms_norm.h"
#include "kernels/rope_heads.h"
#include "kernels/softmax_cross_entropy.h"
#include "kernels/swiglu.h"
#include "measure/program.h"
#include "measure/result.h"
#include "measure/roofline.h"
#include "tensor/device.h"

namespace fathom::bench {
namespace {

struct KernelOptions {
  std::string device = "auto";
  std::string precision;  ///< empty: fp32 on a CPU, bf16 on a GPU
  int64_t rows = 0;       ///< 0: 2,048 on a CPU, 16,384 on a GPU
  int64_t dim = 1024;
  int64_t tokens = 2048;
  int64_t threads = 1;
  std::string only;  ///< what names begin with
  bool as_json = true;
};

Kernel norm_kernel(const Operands& make, bool is_rms) {
  const at::Tensor x = make.random({make.batch() * make.tokens(), make.dim}),
                   weight = make.random({make.dim});
  const double n = make.numbers();
  if (is_rms)
    return {"rms_norm",
            {x, weight},
            [=] { return std::vector{kernels::rms_norm(x, weight, 1e-5)}; },
            {2 * n},
            {3 * n}};
  const at::Tensor bias = make.random({make.dim});
  return {"layer_norm",
          {x, weight, bias},
          [=] { return std::vector{kernels::layer_norm(x, weight, bias, 1e-5)}; },
          {2 * n},
          {3 * n}};
}

Kernel residual_norm_kernel(const Operands& make, bool is_rms) {
  const std::vector<int64_t> sizes = {make.batch() * make.tokens(), make.dim};
  const at::Tensor x = make.random(sizes), branch = make.random(sizes), weight = make.random({make.dim});
  if (!is_rms) {
    const at::Tensor bias = make.random({make.dim});
    const auto forward = [=] {
      const auto both = kernels::residual_layer_norm(x, {branch}, weight, bias, 1e-5);
      return std::vector{both.sum, both.y};
    };
    return {"residual_layer_norm",
            {x, branch, weight, bias},
            forward,
            {4 * make.numbers()},
            {4 * make.numbers()}};
  }
  const auto forward = [=] {
    const auto both = kernels::residual_rms_norm(x, branch, weight, 1e-5);
    return std::vector{both.sum, both.y};
  };
  return {"residual_rms_norm", {x, branch, weight}, forward, {4 * make.numbers()}, {4 * make.numbers()}};
}

/// Maps of 28 × 28 places as wide as a quarter of the others' rows.
Kernel merged_norm_kernel(const Operands& make) {
  const std::vector<int64_t> sizes = {std::max<int64_t>(1, make.rows / 196), 28, 28, make.dim / 4};
  const at::Tensor x = make.random(sizes), branch = make.random(sizes), weight = make.random({make.dim}),
                   bias = make.random({make.dim});
  const double n = static_cast<double>(x.numel());
  return {"merged_layer_norm",
          {x, branch, weight, bias},
          [=] { return std::vector{kernels::merged_layer_norm(x, {branch}, weight, bias, 1e-5)}; },
          {3 * n},
          {4 * n}};
}

Kernel rope_kernel(const Operands& make) {
  const at::Tensor qkv = make.random({make.batch(), make.tokens(), 3 * make.dim});
  const at::Tensor angle_TF =
      at::randn({make.tokens(), make.dim / make.heads() / 2}, make.options.dtype(at::kFloat));
  const at::Tensor cos_TF = angle_TF.cos(), sin_TF = angle_TF.sin();
  const kernels::HeadLayout layout{make.heads(), make.heads()};
  const auto forward = [=] {
    const auto [q, k, v] = kernels::rope_heads(qkv, cos_TF, sin_TF, layout);
    return std::vector{q, k, v};
  };
  return {"rope_heads", {qkv}, forward, {6 * make.numbers()}, {6 * make.numbers()}};
}

Kernel swiglu_kernel(const Operands& make) {
  const at::Tensor gate_up = make.random({make.batch() * make.tokens(), 2 * make.dim});
  const double n = make.numbers();
  return {"swiglu", {gate_up}, [=] { return std::vector{kernels::swiglu(gate_up)}; }, {3 * n}, {5 * n}};
}

Kernel dropout_kernel(const Operands& make) {
  const at::Tensor x = make.random({make.batch(), make.tokens(), make.dim});
  const at::Tensor key_B = at::arange(make.batch(), make.options.dtype(at::kLong));
  const double n = make.numbers();
  return {"keyed_dropout",
          {x},
          [=] { return std::vector{kernels::keyed_dropout(x, key_B, 1, 0.1)}; },
          {2 * n},
          {2 * n}};
}

Kernel column_sum_kernel(const Operands& make) {
  const at::Tensor x = make.random({make.batch() * make.tokens(), make.dim}).detach();
  return {"column_sum", {x}, [=] { return std::vector{kernels::column_sum(x)}; }, {make.numbers()}};
}

/// Of a vocabulary's pieces of logits, as a language model's loss takes them; later calls take what earlier
/// ones have left, which costs the same.
Kernel cross_entropy_kernel(const Operands& make) {
  constexpr int64_t kVocabulary = 32000;
  const int64_t rows = std::min<int64_t>(make.batch() * make.tokens(), 4096);
  const at::Tensor logits_NV = make.random({rows, kVocabulary}).detach(),
                   target_N = at::randint(kVocabulary, {rows}, make.options.dtype(at::kLong));
  return {"softmax_cross_entropy",
          {logits_NV},
          [=] { return std::vector{kernels::softmax_cross_entropy(logits_NV, target_N, logits_NV)}; },
          {2 * static_cast<double>(logits_NV.numel())}};
}

/// Ids as texts have them: the more frequent, the lower.
at::Tensor token_ids(const Operands& make, int64_t vocabulary) {
  const at::Tensor place = at::rand({make.batch(), make.tokens()}, make.options.dtype(at::kFloat));
  return place.mul(std::log(static_cast<double>(vocabulary)))
      .exp()
      .to(at::kLong)
      .sub(1)
      .clamp(0, vocabulary - 1);
}

/// Rows of a float32 table in the type that is measured, and a gradient of the whole table; or LibTorch's
/// way.
Kernel embedding_kernel(const Operands& make, bool is_libtorch) {
  constexpr int64_t kVocabulary = 32000;
  const at::Tensor weight = make.random({kVocabulary, make.dim}).detach().to(at::kFloat).requires_grad_(),
                   ids_BT = token_ids(make, kVocabulary);
  const at::ScalarType type = c10::typeMetaToScalarType(make.options.dtype());
  const auto forward = [=] {
    return std::vector{is_libtorch ? at::embedding(weight, ids_BT).to(type)
                                   : kernels::embedding(weight, ids_BT, type)};
  };
  const double n = make.numbers(), wide = 4.0 / static_cast<double>(c10::elementSize(type));
  return {is_libtorch ? "embedding_of_libtorch" : "embedding",
          {weight},
          forward,
          {(wide + 1) * n},
          {n + wide * static_cast<double>(weight.numel())}};
}

/// A table's rows are added to a gradient that is there already, as that of a tied head is; or a gradient of
/// their own is.
Kernel embedding_sum_kernel(const Operands& make, bool is_libtorch) {
  constexpr int64_t kVocabulary = 32000;
  const at::Tensor sum_VD = at::zeros({kVocabulary, make.dim}, make.options.dtype(at::kFloat)),
                   ids_N = token_ids(make, kVocabulary).flatten(),
                   rows_ND = make.random({ids_N.numel(), make.dim}).detach();
  const double wide = 4.0 / static_cast<double>(rows_ND.element_size()),
               touched = static_cast<double>(std::get<0>(at::_unique(ids_N)).numel() * make.dim);
  const auto forward = [=] {
    (is_libtorch ? kernels::embedding_ref::add : kernels::add_embedding_rows)(sum_VD, ids_N, rows_ND);
    return std::vector{sum_VD};
  };
  return {is_libtorch ? "add_embedding_rows_of_libtorch" : "add_embedding_rows",
          {rows_ND},
          forward,
          {make.numbers() + 2 * wide * touched}};
}

/// Activations in FP8, as they are and turned: half the bytes of a number each.
Kernel fp8_tiles_kernel(const Operands& make) {
  const at::Tensor x = make.random({make.rows / 16 * 16, make.dim}).detach();
  const kernels::Fp8Wish wish{.plain = kernels::TileScales::kByRow, .turned = kernels::TileScales::kByTile};
  const auto forward = [=] {
    const kernels::Fp8Pair pair = kernels::fp8_tiles(x, wish);
    return std::vector{pair.plain.values_RK, pair.turned.values_RK};
  };
  return {"fp8_tiles", {x}, forward, {2 * static_cast<double>(x.numel())}};
}

/// Forward x is turned into FP8, and in training the gradient; the weight is each time.
Kernel fp8_linear_kernel(const Operands& make) {
  const int64_t rows = make.rows / 16 * 16;
  const at::Tensor x = make.random({rows, make.dim});
  const at::Tensor weight =
      at::randn({4 * make.dim, make.dim}, make.options.dtype(at::kFloat)).requires_grad_();
  const auto forward = [=] {
    return std::vector{kernels::fp8_linear(x, weight, {}, {.least_intensity = 0}, nullptr)};
  };
  const double n = static_cast<double>(rows * make.dim), flops = 8 * n * static_cast<double>(make.dim);
  return {"fp8_linear", {x, weight}, forward, {5 * n, flops}, {10 * n, 2 * flops}, 2};
}

/// What this device multiplies in FP8, where it does.
std::vector<Kernel> fp8_kernels(const Operands& make) {
  if (make.options.dtype() != at::kBFloat16 || !kernels::has_fp8_products(make.options.device())) return {};
  return {fp8_tiles_kernel(make), fp8_linear_kernel(make)};
}

std::vector<Kernel> all_kernels(const Operands& make) {
  return {norm_kernel(make, true),
          residual_norm_kernel(make, true),
          norm_kernel(make, false),
          residual_norm_kernel(make, false),
          merged_norm_kernel(make),
          rope_kernel(make),
          swiglu_kernel(make),
          dropout_kernel(make),
          column_sum_kernel(make),
          window_kernel(make),
          attention_kernel(make, false),
          attention_kernel(make, true),
          linear_kernel(make),
          linear_gelu_kernel(make),
          gelu_mlp_kernel(make),
          linear_swiglu_kernel(make),
          cross_entropy_kernel(make),
          embedding_kernel(make, false),
          embedding_kernel(make, true),
          embedding_sum_kernel(make, false),
          embedding_sum_kernel(make, true)};
}

double forward_ms(const Kernel& kernel, DeviceRuntime& runtime) {
  const at::NoGradGuard no_grad;
  return best_ms(runtime, [&] { kernel.forward(); });
}

double training_ms(const Kernel& kernel, DeviceRuntime& runtime) {
  std::vector<at::Tensor> gradients;
  for (const at::Tensor& output : kernel.forward()) gradients.push_back(at::randn_like(output.detach()));
  return best_ms(runtime, [&] { torch::autograd::grad(kernel.forward(), kernel.inputs, gradients); });
}

class KernelBench {
 public:
  KernelBench(DeviceRuntime& runtime, const KernelOptions& options)
      : runtime_(runtime), options_(options), roofline_(runtime, type_named(options.precision)) {}

  void run() {
    const Operands make{at::TensorOptions().device(runtime_.device()).dtype(type_named(options_.precision)),
                        options_.rows, options_.dim, options_.tokens};
    std::vector<Kernel> every = all_kernels(make);
    for (Kernel& kernel : fp8_kernels(make)) every.push_back(std::move(kernel));
    if (make.options.dtype() == at::kBFloat16 && !make.options.device().is_cpu())
      every.push_back(half_linear_kernel(make));
    for (Kernel& kernel : counted_kernels(make)) every.push_back(std::move(kernel));
    for (const Kernel& kernel : every) {
      if (kernel.name.compare(0, options_.only.size(), options_.only) != 0) continue;
      print(kernel, "forward", forward_ms(kernel, runtime_), kernel.forward_cost);
      if (kernel.backward_cost.numbers == 0) continue;
      print(kernel, "training", training_ms(kernel, runtime_),
            {kernel.forward_cost.numbers + kernel.backward_cost.numbers,
             kernel.forward_cost.flops + kernel.backward_cost.flops});
    }
  }

 private:
  void print(const Kernel& kernel, const char* pass, double ms, const Cost& cost) {
    const double bytes = cost.numbers * static_cast<double>(c10::elementSize(type_named(options_.precision)));
    Json line = new_line("kernels", runtime_.name());
    line["operation"] = kernel.name;
    line["pass"] = pass;
    line["precision"] = options_.precision;
    line["rows"] = options_.rows;
    line["dim"] = options_.dim;
    if (!kernel.weight.empty()) line["weight"] = kernel.weight;
    line["ms"] = ms;
    line["bytes"] = bytes;
    line["bandwidth_share"] = bytes / (1e-3 * ms) / roofline_.bandwidth();
    if (cost.flops > 0) {
      line["flops"] = cost.flops;
      line["gemm_share"] = cost.flops / (1e-3 * ms) / (kernel.rate * roofline_.gemm_rate());
    }
    line["gigabytes_per_second"] = 1e-9 * roofline_.bandwidth();
    line["gemm_tflop_per_second"] = 1e-12 * roofline_.gemm_rate();
    print_line(line);
  }

  DeviceRuntime& runtime_;
  KernelOptions options_;
  Roofline roofline_;
};

void add_options(CLI::App& app, KernelOptions& options) {
  app.add_option("--device", options.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--precision", options.precision, "of operands; bf16 on a GPU, fp32 on a CPU by default")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}));
  app.add_option("--rows", options.rows, "tokens or places; 16384 on a GPU, 2048 on a CPU by default")
      ->check(CLI::Range(16, 1 << 24));
  app.add_option("--dim", options.dim, "their width")->check(CLI::Range(64, 8192))->capture_default_str();
  app.add_option("--tokens", options.tokens, "of a sequence, where there are as many rows")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--only", options.only, "operations whose names begin with this");
  app.add_option("--threads", options.threads, "on a CPU; with one, times are CPU times")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_flag("--json", options.as_json, "as it is without: nothing but JSON is printed");
}

void run_kernels(KernelOptions options) {
  const at::Device device = select_device(options.device);
  if (options.dim % 64 != 0) fail(ErrorKind::kUsage, "--dim {}: expected a multiple of 64", options.dim);
  if (options.precision.empty()) options.precision = device.is_cpu() ? "fp32" : "bf16";
  if (options.rows == 0) options.rows = device.is_cpu() ? 2048 : 16384;
  const auto runtime = make_device_runtime(device);
  runtime->activate();
  if (device.is_cpu()) at::set_num_threads(static_cast<int>(options.threads));
  KernelBench(*runtime, options).run();
}

}  // namespace
}  // namespace fathom::bench

int main(int argc, char** argv) {
  CLI::App app("Times each operation of src/kernels against the device's limits.", "bench_kernels");
  fathom::bench::KernelOptions options;
  fathom::bench::add_options(app, options);
  return fathom::bench::run_program(app, argc, argv, [&] { fathom::bench::run_kernels(options); });
}
