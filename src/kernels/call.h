// Calls an op of the library `fathom` through the dispatcher.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>

namespace fathom::kernels {

/// The typed handle of `fathom::NAME`; look it up once: `static const auto op = find_op<Signature>("name");`.
template <typename Signature>
c10::TypedOperatorHandle<Signature> find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

/// What a schema calls `Tensor?`: nothing for an undefined `x`.
inline std::optional<at::Tensor> optional(const at::Tensor& x) {
  return x.defined() ? std::make_optional(x) : std::nullopt;
}

}  // namespace fathom::kernels
