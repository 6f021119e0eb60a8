// Vendors' figures for dense matrix products (NVIDIA's data sheets; halves of those quoted "with sparsity").
#include <string_view>

#include "cuda/plugin.h"

namespace fathom::cuda {
namespace {

/// TFLOP/s. The first row whose `name` occurs in the device's name counts, so longer names come first.
struct Row {
  std::string_view name;
  double half;  ///< FP16 and BF16, FP32 accumulation
  double tf32;
  double single;
  double double_;  ///< tensor cores where they do FP64
};

constexpr Row kRows[] = {
    {"B300", 2250, 1125, 76, 1.2},          {"B200", 2250, 1125, 75, 37},
    {"GH200", 989.4, 494.7, 66.9, 66.9},    {"H200", 989.4, 494.7, 66.9, 66.9},
    {"H100 PCIe", 756.5, 378, 51.2, 51.2},  {"H100 NVL", 835, 417.5, 60, 60},
    {"H100", 989.4, 494.7, 66.9, 66.9},     {"A100", 312, 156, 19.5, 19.5},
    {"A40", 149.7, 74.8, 37.4, 0.58},       {"A10G", 70, 35, 35, 0.5},
    {"A10", 125, 62.5, 31.2, 0.5},          {"L40S", 362, 183, 91.6, 1.4},
    {"L40", 181, 90.5, 90.5, 1.4},          {"L4", 121, 60, 30.3, 0.47},
    {"V100", 125, 15.7, 15.7, 7.8},         {"T4", 65, 8.1, 8.1, 0.25},
    {"RTX 5090", 209.5, 104.8, 104.8, 1.6}, {"RTX 4090", 165.2, 82.6, 82.6, 1.3},
    {"RTX 3090", 71, 35.6, 35.6, 0.56},
};

}  // namespace

double peak_flops_of(const std::string& name, at::ScalarType type, bool allows_tf32) {
  for (const Row& row : kRows) {
    if (name.find(row.name) == std::string::npos) continue;
    switch (type) {
      case at::kHalf:
      case at::kBFloat16:
        return row.half * 1e12;
      case at::kFloat:
        return (allows_tf32 ? row.tf32 : row.single) * 1e12;
      case at::kDouble:
        return row.double_ * 1e12;
      default:
        return 0;
    }
  }
  return 0;
}

}  // namespace fathom::cuda
