// How settled the gates of a language model are.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <utility>

#include "evaluate/options.h"
#include "models/language/model.h"
#include "tensor/tensor_file.h"

namespace fathom {

/// How many decisions over one text are those of the evaluation before. One thread.
class GateAgreement {
 public:
  /// `tokens_1T`: int64, the text.
  explicit GateAgreement(at::Tensor tokens_1T) : tokens_1T_(std::move(tokens_1T)) {}

  /// Their share: 1 for gates that have settled. Nothing at the first evaluation, and without gates. Puts the
  /// model into evaluation mode.
  std::optional<double> measure(LanguageModel model, const EvaluateOptions& options);

  /// The last decisions, for the training state; empty before the first evaluation.
  TensorMap state() const;
  /// Decisions about another text are forgotten.
  void load_state(const TensorMap& state);

 private:
  at::Tensor tokens_1T_;
  GateTrace former_;  ///< on the CPU
};

}  // namespace fathom
