#include "tensor/determinism.h"

#include <ATen/Context.h>

#include <cstdlib>

namespace fathom {

Determinism::Determinism(bool on) : on_(on) {
  if (!on_) return;
  ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  at::Context& context = at::globalContext();
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(false);  // a pass over all memory that finds mistakes
  context.setDeterministicCuDNN(true);
}

Determinism::~Determinism() {
  if (!on_) return;
  at::Context& context = at::globalContext();
  context.setDeterministicAlgorithms(false, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(true);
  context.setDeterministicCuDNN(false);
}

}  // namespace fathom
