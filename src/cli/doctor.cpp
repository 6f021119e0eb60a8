// fathom doctor [--json]: what works on this machine and what is missing.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <torch/version.h>

#include <filesystem>
#include <vector>

#include "base/version.h"
#include "cli/card_gaps.h"
#include "cli/options.h"
#include "cli/verbs.h"
#include "kernels/fp8_tiles.h"
#include "kernels/shifted_window_attention.h"
#include "tensor/cpu_runtime.h"
#include "tensor/cuda_plugin.h"
#include "tensor/device.h"
#include "tensor/device_runtime.h"

namespace fathom::cli {
namespace {

Json describe_device(at::Device device) {
  const auto runtime = make_device_runtime(device);
  Json fast_types = Json::array();
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    if (runtime->is_fast(type)) fast_types.push_back(c10::toString(type));
  }
  Json result = Json::Object{{"device", device.str()},
                             {"name", runtime->name()},
                             {"memory_bytes", runtime->memory().total_bytes},
                             {"fast_types", fast_types},
                             {"float32_tflops", runtime->peak_flops(at::kFloat) / 1e12}};
  if (device.is_cpu()) result["threads"] = static_cast<int64_t>(at::get_num_threads());
  return result;
}

Json describe_devices(const CudaAvailability& cuda) {
  Json devices = Json::array();
  devices.push_back(describe_device(at::kCPU));
  for (int64_t i = 0; i < cuda.num_devices; ++i) {
    devices.push_back(describe_device(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(i))));
  }
  return devices;
}

/// Whether a Swin's usual windows, of 7 with a shift, have their kernels there: while gradients are recorded,
/// for training too.
bool has_window_kernels(at::Device card) {
  const at::Tensor x = at::empty({0}, at::TensorOptions(card).dtype(at::kBFloat16));
  return kernels::has_shifted_window_attention(x, {.height = 14, .width = 14, .side = 7, .shift = 3}, 32);
}

Card card_at(at::Device device) {
  Card card = {.name = device.str(), .missing_kernels = make_device_runtime(device)->missing_kernels()};
  if (!card.missing_kernels.empty()) return card;
  card.learning_windows = has_window_kernels(device);
  card.fp8_products = kernels::has_fp8_products(device);
  const at::NoGradGuard no_gradients;
  card.windows = has_window_kernels(device);
  return card;
}

std::vector<Card> find_cards(const CudaAvailability& cuda) {
  std::vector<Card> cards;
  for (int64_t i = 0; i < cuda.num_devices; ++i)
    cards.push_back(card_at(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(i))));
  return cards;
}

/// Why features that want a GPU do not work, by their names.
Json describe_reasons(const CudaAvailability& cuda, const std::vector<Card>& cards) {
  Json reasons = Json::object();
  if (const CudaPluginSearch& search = find_cuda_plugin(); search.plugin == nullptr) {
    reasons["cuda_plugin"] = search.reason;
    for (const char* name : {"cuda", "cuda_kernels", "fp8", "nccl"}) reasons[name] = "no CUDA plug-in";
    return reasons;
  }
  if (cuda.num_devices == 0) {
    reasons["cuda"] = cuda.reason;
    for (const char* name : {"cuda_kernels", "fp8", "nccl"}) reasons[name] = "no GPU";
    return reasons;
  }
  for (const Card& card : cards) {  // the first card's, where several lack the same
    if (!card.missing_kernels.empty() && !reasons.find("cuda_kernels"))
      reasons["cuda_kernels"] = card.name + ": " + card.missing_kernels;
    if (const std::string gap = fp8_gap(card); !gap.empty() && !reasons.find("fp8"))
      reasons["fp8"] = card.name + ": " + gap;
  }
  return reasons;
}

/// `reasons`: of those that do not work though they might, elsewhere.
Json describe_features(const Json& reasons) {
  const auto works = [&](const char* name) { return reasons.find(name) == nullptr; };
  return Json::Object{{"avx2", static_cast<bool>(__builtin_cpu_supports("avx2"))},
                      {"avx512", static_cast<bool>(__builtin_cpu_supports("avx512f"))},
                      {"avx512_vnni", static_cast<bool>(__builtin_cpu_supports("avx512vnni"))},
                      {"bf16", make_device_runtime(at::kCPU)->is_fast(at::kBFloat16)},
                      {"cuda_plugin", works("cuda_plugin")},
                      {"cuda", works("cuda")},
                      {"cuda_kernels", works("cuda_kernels")},
                      {"fp8", works("fp8")},
                      {"nccl", works("nccl")},
                      {"gloo", true}};
}

Json describe_libraries() {
  const CudaPlugin* plugin = find_cuda_plugin().plugin;
  return Json::Object{{"libtorch", TORCH_VERSION}, {"nccl", plugin ? Json(plugin->nccl_version()) : Json()}};
}

Json describe_disk() {
  std::error_code code;
  const auto here = std::filesystem::current_path(code);
  const auto space = std::filesystem::space(here, code);
  return Json::Object{{"path", here.string()},
                      {"free_bytes", code ? Json() : Json(static_cast<int64_t>(space.available))}};
}

/// What does not work here, each with its reason.
Json describe_missing(const CudaAvailability& cuda, const std::vector<Card>& cards, const Json& features) {
  Json missing = Json::array();
  if (cuda.num_devices == 0) missing.push_back("GPU: " + cuda.reason);
  for (const Card& card : cards)
    for (const std::string& gap : missing_on(card)) missing.push_back(gap);
  if (!features.at("avx2").as_bool())
    missing.push_back("AVX2: this processor lacks it; images are decoded more slowly");
  if (!features.at("bf16").as_bool()) {
    missing.push_back("BF16 on the CPU: no instructions for it here; it works but \"fp32\" is faster");
  }
  return missing;
}

Json examine() {
  const CudaAvailability cuda = cuda_availability();
  const std::vector<Card> cards = find_cards(cuda);
  const Json reasons = describe_reasons(cuda, cards), features = describe_features(reasons);
  return Json::Object{{"version", version()},
                      {"commit", commit()},
                      {"devices", describe_devices(cuda)},
                      {"features", features},
                      {"reasons", reasons},
                      {"libraries", describe_libraries()},
                      {"memory", Json::Object{{"total_bytes", usable_memory_bytes()}}},
                      {"disk", describe_disk()},
                      {"missing", describe_missing(cuda, cards, features)}};
}

std::string gigabytes(const Json& bytes) {
  return bytes.is_null() ? "unknown" : fmt::format("{:.1f} GB", bytes.as_double() / 1e9);
}

void print_report(const Json& found) {
  fmt::print("fathom {} ({}), LibTorch {}\n", found.at("version").as_string(), found.at("commit").as_string(),
             found.at("libraries").at("libtorch").as_string());
  for (const Json& device : found.at("devices").as_array()) {
    const Json* threads = device.find("threads");
    fmt::print("{:<10}{}, {}{}, {:.2f} TFLOP/s in FP32\n", device.at("device").as_string(),
               device.at("name").as_string(), gigabytes(device.at("memory_bytes")),
               threads ? fmt::format(", {} threads", threads->as_int()) : "",
               device.at("float32_tflops").as_double());
  }
  fmt::print("{:<10}{} free in {}\n", "disk", gigabytes(found.at("disk").at("free_bytes")),
             found.at("disk").at("path").as_string());
  fmt::print("{:<10}", "features");
  for (const auto& [name, works] : found.at("features").as_object()) {
    const Json* why = found.at("reasons").find(name);
    const bool is_said_below = name == "cuda_plugin" || name == "cuda";
    fmt::print("{}{} {}", works.as_bool() ? "+" : "-", name,
               why && !is_said_below ? fmt::format("({}) ", why->as_string()) : "");
  }
  fmt::print("\n");
  for (const Json& reason : found.at("missing").as_array())
    fmt::print("{:<10}{}\n", "missing", reason.as_string());
}

}  // namespace

int run_doctor(int argc, const char* const* argv) {
  VerbApp app("doctor", "Says what works on this machine and what is missing.");
  bool as_json = false;
  app.add_flag("--json", as_json, "print one JSON object");
  if (!parse_options(app, argc, argv)) return 0;
  const Json found = examine();
  if (as_json) {
    print_json(found);
  } else {
    print_report(found);
  }
  return 0;
}

}  // namespace fathom::cli
