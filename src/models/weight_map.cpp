#include "models/weight_map.h"

#include <ATen/ATen.h>

#include <set>

#include "base/error.h"

namespace fathom {
namespace {

constexpr size_t kMostNamed = 8;

std::string shape_text(at::IntArrayRef shape) {
  return fmt::format("[{}]", fmt::join(shape.vec(), ", "));
}

/// What each source must look like, and where in the parameter it goes.
struct Slot {
  const WeightRule* rule;
  const WeightRule::Source* source;
  at::Tensor target;
};

std::vector<Slot> slots_of(const torch::nn::Module& module, const WeightMap& map, Coverage coverage) {
  std::map<std::string, at::Tensor> parameters;
  for (const auto& item : module.named_parameters()) parameters[item.key()] = item.value().detach();
  std::vector<Slot> slots;
  for (const auto& rule : map) {
    const auto found = parameters.find(rule.parameter);
    FATHOM_CHECK(found != parameters.end(), "[weight_map] the model has no parameter {}", rule.parameter);
    int64_t row = 0;
    for (const auto& source : rule.sources) {
      const bool whole = rule.sources.size() == 1;
      slots.push_back({&rule, &source, whole ? found->second : found->second.narrow(0, row, source.rows)});
      row += source.rows;
    }
    FATHOM_CHECK(rule.sources.size() == 1 || row == found->second.size(0),
                 "[weight_map] the sources of {} have {} rows of {}", rule.parameter, row,
                 found->second.size(0));
    parameters.erase(found);
  }
  FATHOM_CHECK(coverage == Coverage::kMapped || parameters.empty(), "[weight_map] no rule gives {}",
               parameters.begin()->first);
  return slots;
}

/// Everything that does not fit.
std::vector<std::string> find_problems(const std::vector<Slot>& slots, const WeightFiles& files,
                                       const IgnoreRule& ignore) {
  std::vector<std::string> problems;
  std::set<std::string> wanted;
  for (const auto& slot : slots) {
    wanted.insert(slot.source->name);
    const auto found = files.tensors().find(slot.source->name);
    if (found == files.tensors().end())
      problems.push_back("missing: " + slot.source->name);
    else if (found->second->shape != slot.target.sizes().vec())
      problems.push_back(fmt::format("shape: {} is {}, expected {}", slot.source->name,
                                     shape_text(found->second->shape), shape_text(slot.target.sizes())));
  }
  for (const auto& [name, view] : files.tensors())
    if (!wanted.contains(name) && !(ignore && ignore(name))) problems.push_back("unexpected: " + name);
  return problems;
}

/// The mapped bytes as a tensor, without a copy where they are aligned.
at::Tensor as_tensor(const TensorView& view) {
  const auto address = reinterpret_cast<uintptr_t>(view.bytes.data());
  if (view.bytes.empty() || address % static_cast<uintptr_t>(dtype_bytes(view.dtype)) != 0)
    return to_tensor(view);
  // from_blob takes a mutable pointer; the tensor is only read from.
  return at::from_blob(const_cast<std::byte*>(view.bytes.data()), view.shape,
                       at::TensorOptions().dtype(to_scalar_type(view.dtype)));
}

}  // namespace

bool belongs_to_gate(const std::string& parameter) {
  return parameter.find("gate.") != std::string::npos;
}

bool is_addition(const std::string& parameter) {
  return belongs_to_gate(parameter) || parameter.find("local_mixing.") != std::string::npos ||
         parameter.find("convolution_stem.") != std::string::npos;
}

WeightMap identity_map(const torch::nn::Module& module) {
  WeightMap map;
  for (const auto& item : module.named_parameters())
    if (item.key().find(".lora_") == std::string::npos) map.push_back({item.key(), {{item.key()}}});
  return map;
}

void load_weights(torch::nn::Module& module, const WeightMap& map, const WeightFiles& files,
                  const IgnoreRule& ignore, Coverage coverage) {
  at::NoGradGuard no_grad;
  const auto slots = slots_of(module, map, coverage);
  auto problems = find_problems(slots, files, ignore);
  if (!problems.empty()) {
    const size_t count = problems.size();
    if (count > kMostNamed) problems.resize(kMostNamed);
    fail(ErrorKind::kCheckpoint, "{}: the weights do not fit the model in {} places:\n{}{}", files.path(),
         count, fmt::join(problems, "; "),
         count > kMostNamed ? fmt::format("; and {} more", count - kMostNamed) : "");
  }
  for (const auto& slot : slots) slot.target.copy_(as_tensor(*files.tensors().at(slot.source->name)));
}

TensorMap foreign_weights(const torch::nn::Module& module, const WeightMap& map) {
  TensorMap result;
  for (const auto& slot : slots_of(module, map, Coverage::kMapped))
    result[slot.source->name] = slot.target.to(at::kCPU).contiguous();
  return result;
}

}  // namespace fathom
