// A whole training step as the trainer makes it.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "models/language/config.h"
#include "models/swin/config.h"
#include "step/subject.h"
#include "train/task.h"

namespace fathom::bench {

/// Forward, backward, norm of the gradients, clipping and AdamW of `task` on one batch that stays on the
/// device, in the question's precision; parameters in float32; under fp16_bf16 the loss is scaled. Errors
/// (kUsage): the device has no products in FP8 or FP16.
std::function<void()> training_step(std::unique_ptr<Task> task, Batch batch, const Question& question);

/// The transformer of a question, whose shape is layers, width, tokens, batch: heads of 64, feed-forward
/// layers of 11/4 of the width, no dropout.
LanguageModelConfig transformer_config(const Question& question);
/// Swin-T without stochastic depth.
SwinConfig swin_config(const Question& question);
/// What both sides must agree on, by names that the peer reads.
void add_sizes(Json& sizes, const LanguageModelConfig& config);
void add_sizes(Json& sizes, const SwinConfig& config);

}  // namespace fathom::bench
