#include "cli/card_gaps.h"

#include <fmt/format.h>

namespace fathom::cli {
namespace {

std::string window_gap(const Card& card) {
  const bool fits = card.windows;
  return fmt::format(
      "attention in windows of 7 on {}: too little shared memory for the kernel{}; {} a Swin runs LibTorch's "
      "operations, more slowly",
      card.name, fits ? "'s backward pass" : "", fits ? "training" : "training and using");
}

}  // namespace

std::string fp8_gap(const Card& card) {
  if (!card.missing_kernels.empty()) return "kernels of ours do not run there";
  return card.fp8_products ? "" : "no products with scales for tiles (Hopper has them)";
}

std::vector<std::string> missing_on(const Card& card) {
  std::vector<std::string> missing;
  if (!card.missing_kernels.empty())
    missing.push_back(fmt::format("kernels of ours on {}: {}; LibTorch's run, more slowly", card.name,
                                  card.missing_kernels));
  else if (!card.windows || !card.learning_windows)
    missing.push_back(window_gap(card));
  if (const std::string gap = fp8_gap(card); !gap.empty())
    missing.push_back(
        fmt::format("FP8 on {}: {}; precision = \"fp8\" computes in BF16 there", card.name, gap));
  return missing;
}

}  // namespace fathom::cli
