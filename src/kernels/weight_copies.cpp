#include "kernels/weight_copies.h"

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/error.h"

namespace fathom::kernels {

TensorContent TensorContent::of(const at::Tensor& x) {
  return {static_cast<int64_t>(x._version()), x.const_data_ptr(), x.storage()};
}

bool TensorContent::is_of(const at::Tensor& x) const {
  return version == static_cast<int64_t>(x._version()) && place == x.const_data_ptr();
}

namespace {

/// Undefined without one.
at::Tensor copy_of(const at::Tensor& weight, at::ScalarType type, WeightCopies* copies) {
  const bool asks = copies != nullptr && weight.scalar_type() != type;
  return asks ? copies->of(weight, type) : at::Tensor();
}

}  // namespace

WeightCopies::WeightCopies(const std::vector<at::Tensor>& weights, at::ScalarType type,
                           const at::Tensor& saturated)
    : type_(type), saturated_(saturated) {
  FATHOM_CHECK(type == at::kHalf || type == at::kBFloat16,
               "[weight_copies] expected a type of 16 bits, got {}", c10::toString(type));
  for (const at::Tensor& weight : weights)
    if (weight.scalar_type() == at::kFloat && weight.is_contiguous())
      entries_.emplace(weight.unsafeGetTensorImpl(), Entry{.weight = weight});
}

void WeightCopies::refresh(Entry& entry) {
  if (entry.copied.is_of(entry.weight)) return;
  const at::AutoDispatchBelowADInplaceOrView below;
  if (!entry.copy.defined()) ++size_;
  if (!entry.copy.defined() || entry.copy.device() != entry.weight.device())
    entry.copy = at::empty(entry.weight.sizes(), entry.weight.options().dtype(type_));
  entry.copy.copy_(type_ == at::kHalf ? saturated_half(entry.weight, {.saturated = saturated_})
                                      : entry.weight);
  // Autograd then notices where a backward pass wants the former content.
  entry.copy.unsafeGetTensorImpl()->bump_version();
  entry.copied = TensorContent::of(entry.weight);
}

at::Tensor WeightCopies::of(const at::Tensor& weight, at::ScalarType type) {
  const auto found = entries_.find(weight.unsafeGetTensorImpl());
  if (type != type_ || found == entries_.end()) return {};
  refresh(found->second);
  return found->second.copy;
}

void WeightCopies::refresh() {
  for (auto& [key, entry] : entries_)
    if (entry.copy.defined()) refresh(entry);
}

at::Tensor WeightCopies::kept(const at::Tensor& weight) const {
  const auto found = entries_.find(weight.unsafeGetTensorImpl());
  return found == entries_.end() ? at::Tensor() : found->second.copy;
}

void WeightCopies::follow(const at::Tensor& weight) {
  const auto found = entries_.find(weight.unsafeGetTensorImpl());
  if (found != entries_.end() && found->second.copy.defined())
    found->second.copied = TensorContent::of(weight);
}

at::Tensor narrowed_weight(const at::Tensor& weight, at::ScalarType type, WeightCopies* copies) {
  if (type == at::kHalf) return half_weight(weight, {}, copies);
  const at::Tensor copy = copy_of(weight, type, copies);
  const at::AutoDispatchBelowADInplaceOrView below;
  return copy.defined() ? copy : weight.to(type);
}

at::Tensor half_weight(const at::Tensor& weight, const Products& products, WeightCopies* copies) {
  const at::Tensor copy = copy_of(weight, at::kHalf, copies);
  return copy.defined() ? copy : saturated_half(weight, products);
}

}  // namespace fathom::kernels
