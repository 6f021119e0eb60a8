#include "models/classifier/model.h"

#include "base/error.h"
#include "nn/residual.h"

namespace fathom {
namespace {

/// Beyond the streams of every encoder.
constexpr int64_t kHeadStream = int64_t{1} << 40;

}  // namespace

ClassifierImpl::ClassifierImpl(const ClassifierConfig& config) : config_(config) {
  config.validate();
  const auto num_classes = static_cast<int64_t>(config.classes.size());
  if (num_classes < 2)
    fail(ErrorKind::kConfig, "a classifier needs at least two classes, got {}", num_classes);
  if (config.encoder == EncoderKind::kImage) vision_ = register_module("vision", Swin(config.vision));
  if (config.encoder == EncoderKind::kText) text_ = register_module("text", LanguageModel(config.text));
  if (config.encoder == EncoderKind::kAudio) audio_ = register_module("audio", AudioEncoder(config.audio));
  head_ = register_module("head", Linear(LinearOptions{.in = config.encoder_dim(), .out = num_classes}));
}

at::Tensor ClassifierImpl::logits(const at::Tensor& pooled_BD, const ForwardContext& context) const {
  return head_->forward(dropout(pooled_BD, config_.head_dropout, kHeadStream, context), context,
                        Feeds::kLoss);
}

}  // namespace fathom
