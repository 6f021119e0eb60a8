// Small models with weights by formula, and folders to put them in.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "formula_weights.h"
#include "gradcheck.h"
#include "models/dual_tower/model.h"
#include "models/language/model.h"
#include "models/model_folder.h"
#include "models/swin/model.h"
#include "temporary_folder.h"
#include "tensor/tensor_file.h"

namespace fathom::testing {

template <typename Model>
void fill_by_formula(Model& model) {
  at::NoGradGuard no_grad;
  for (auto& item : model->named_parameters())
    item.value().copy_(formula_weight(item.key(), item.value().sizes()));
}

template <typename Model>
void expect_same_parameters(const Model& a, const Model& b) {
  const auto theirs = b->named_parameters();
  ASSERT_EQ(a->named_parameters().size(), theirs.size());
  for (const auto& item : a->named_parameters())
    EXPECT_TRUE(at::equal(item.value(), theirs[item.key()])) << item.key();
}

inline LanguageModelConfig small_language() {
  return {.vocab_size = 31,
          .dim = 24,
          .layers = 2,
          .heads = 4,
          .kv_heads = 2,
          .mlp_dim = 40,
          .max_positions = 32};
}

inline SwinConfig small_swin() {
  SwinConfig config;
  config.image_size = 32;
  config.dim = 8;
  config.depths = {2, 2};
  config.heads = {2, 4};
  config.window = 3;
  config.drop_path = 0.0;
  return config;
}

inline DualTowerConfig small_dual_tower() {
  DualTowerConfig config;
  config.vision = small_swin();
  config.text = small_language();
  config.embed_dim = 12;
  config.logit_bias = true;
  return config;
}

/// Tensors by formula of the names and shapes that a golden file lists.
inline TensorMap foreign_tensors(const std::string& list) {
  TensorMap tensors;
  const Json names = read_json_file(list);
  for (const auto& [tensor, shape] : names.as_object()) {
    std::vector<int64_t> sizes;
    for (const auto& size : shape.as_array()) sizes.push_back(size.as_int());
    tensors[tensor] = formula_weight(tensor, sizes);
  }
  return tensors;
}

/// A folder as the foreign library leaves it, read (tests/golden/models_golden.py).
inline LoadedModel foreign_model(const std::string& name, const LoadOptions& options = {}) {
  namespace fs = std::filesystem;
  const std::string goldens = FATHOM_GOLDENS "/models/" + name;
  const TemporaryFolder folder;
  fs::create_directories(folder / "model");
  fs::copy_file(goldens + ".config.json", folder / "model/config.json");
  save_tensors(folder / "model/model.safetensors", foreign_tensors(goldens + ".weights.json"),
               {{"format", "pt"}});
  return load_model_folder(folder / "model", options);
}

/// The message of the error that `call` throws, or an empty string.
template <typename Call>
std::string error_of(const Call& call, ErrorKind kind) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.kind()), static_cast<int>(kind)) << error.what();
    return error.what();
  }
  return "";
}

inline at::Tensor sample_keys(int64_t count) {
  return at::arange(count, at::kLong).mul(0x9e3779b97f4a7c1);
}

}  // namespace fathom::testing
