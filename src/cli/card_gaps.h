// What `fathom doctor` says of a GPU that lacks something.
#pragma once

#include <string>
#include <vector>

namespace fathom::cli {

/// What of ours a GPU runs.
struct Card {
  std::string name;
  std::string missing_kernels;   ///< why it runs none of our kernels; empty where it does
  bool windows = true;           ///< it has room for attention in a Swin's windows of 7
  bool learning_windows = true;  ///< and for its backward pass
  bool fp8_products = true;
};

/// Why precision fp8 does not compute in FP8 there; empty where it does.
std::string fp8_gap(const Card& card);
/// What does not work there, each with its reason.
std::vector<std::string> missing_on(const Card& card);

}  // namespace fathom::cli
