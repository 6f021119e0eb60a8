#include <ATen/ATen.h>

#include <memory>
#include <utility>

#include "kernels/weight_copies.h"
#include "models/dual_tower/model.h"
#include "models/language/model.h"
#include "models/swin/model.h"
#include "nn/init.h"
#include "step/least_work.h"
#include "step/subject.h"
#include "step/training.h"
#include "train/task/contrastive.h"
#include "train/task/language.h"
#include "train/task/module_parameters.h"

namespace fathom::bench {
namespace {

/// With first weights, on the device.
template <typename Model, typename Config>
Model made(const Config& config, at::Device device) {
  Model model(config);
  init_parameters(*model, 1);
  model->to(device);
  return model;
}

at::TensorOptions integers_on(at::Device device) {
  return at::TensorOptions().dtype(at::kLong).device(device);
}

at::Tensor random_images(int64_t batch, int64_t side, at::Device device) {
  return at::randn({batch, 3, side, side}, at::TensorOptions().dtype(at::kFloat).device(device));
}

/// An objective that costs next to nothing: the mean square of what a Swin gives.
class MeanSquareTask final : public Task {
 public:
  explicit MeanSquareTask(Swin model) : model_(std::move(model)) {}
  NamedParameters parameters() const override { return module_parameters(*model_); }
  at::Tensor loss(const MicroBatch& micro_batch, const StepContext&) override {
    return model_(micro_batch.batch.image_BCHW, micro_batch.forward).to(at::kFloat).square().mean();
  }
  Metrics evaluate() override { return {}; }
  std::string default_metric() const override { return ""; }
  void save_model(const std::string&, const Json&) override {}
  double flops_per_sample() const override {
    return 3 * static_cast<double>(forward_flops(model_->config(), 1));
  }

 private:
  Swin model_;
};

/// What makes a subject of a task and a batch.
Subject training_subject(std::unique_ptr<Task> task, Batch batch, const Question& question, LeastWork least) {
  Subject subject;
  subject.flops = task->flops_per_sample() * static_cast<double>(batch.size());
  int64_t parameters = 0;
  for (const auto& [name, parameter] : task->parameters()) parameters += parameter.numel();
  least.add(optimizer_work(parameters, question.type()));
  subject.least = std::move(least);
  subject.sizes["parameters"] = parameters;
  subject.run = training_step(std::move(task), std::move(batch), question);
  return subject;
}

/// As `fathom embed` and `fathom generate` compute: parameters in float32, and copies of them in the type of
/// products.
struct Settled {
  Settled(torch::nn::Module& model, const Question& question) {
    model.eval();
    if (question.type() == at::kFloat) return;
    copies = std::make_shared<kernels::WeightCopies>(model.parameters(), question.type());
    context.compute_dtype = question.type();
    context.copies = copies.get();
  }
  std::shared_ptr<kernels::WeightCopies> copies;
  ForwardContext context{.settled = true};
};

/// What reading a prompt costs: the logits of the last place.
Subject decoder_pass(LanguageModel model, const at::Tensor& tokens_BT, const Question& question) {
  const LanguageModelConfig& config = model->config();
  const int64_t batch = tokens_BT.size(0), tokens = tokens_BT.size(1);
  LeastWork least = transformer_work(config, batch, tokens, false, {question.type(), false});
  least.products.push_back({batch, config.dim, config.vocab_size});
  const auto run = [model, settled = Settled(*model, question), tokens_BT]() mutable {
    const at::NoGradGuard no_grad;
    model->logits(model->hidden(tokens_BT, {}, settled.context).select(1, -1), settled.context);
  };
  const int64_t spared = 2 * batch * (tokens - 1) * config.dim * config.vocab_size;
  return {.run = run,
          .flops = static_cast<double>(forward_flops(config, batch, tokens) - spared),
          .least = std::move(least)};
}

Subject swin_pass(Swin model, const at::Tensor& image_BCHW, const Question& question, LeastWork least) {
  const auto run = [model, settled = Settled(*model, question),
                    image = image_BCHW.to(question.type())]() mutable {
    const at::NoGradGuard no_grad;
    model(image, settled.context);
  };
  return {.run = run,
          .flops = static_cast<double>(forward_flops(model->config(), image_BCHW.size(0))),
          .least = std::move(least)};
}

}  // namespace

Subject make_decoder(const Question& question, at::Device device) {
  const LanguageModelConfig config = transformer_config(question);
  const int64_t tokens = question.shape[2], batch_size = question.shape[3];
  if (!question.trains()) {
    Subject subject =
        decoder_pass(made<LanguageModel>(config, device),
                     at::randint(config.vocab_size, {batch_size, tokens}, integers_on(device)), question);
    add_sizes(subject.sizes, config);
    return subject;
  }
  Batch batch{.index_B = at::arange(batch_size, integers_on(device)),
              .tokens_BT = at::randint(config.vocab_size, {batch_size, tokens + 1}, integers_on(device))};
  auto task = std::make_unique<LanguageTask>(
      LanguageTask::Setup{.model = made<LanguageModel>(config, device), .num_tokens = tokens});
  Subject subject =
      training_subject(std::move(task), std::move(batch), question,
                       transformer_work(config, batch_size, tokens, true, {question.type(), true}));
  add_sizes(subject.sizes, config);
  return subject;
}

Subject make_swin(const Question& question, at::Device device) {
  const SwinConfig config = swin_config(question);
  const int64_t batch_size = question.shape[0];
  const at::Tensor image_BCHW = random_images(batch_size, config.image_size, device);
  Swin model = made<Swin>(config, device);
  LeastWork least = swin_work(config, batch_size, {question.type(), question.trains()});
  Subject subject;
  if (question.trains()) {
    Batch batch{.index_B = at::arange(batch_size, integers_on(device)), .image_BCHW = image_BCHW};
    subject = training_subject(std::make_unique<MeanSquareTask>(model), std::move(batch), question,
                               std::move(least));
  } else {
    subject = swin_pass(model, image_BCHW, question, std::move(least));
  }
  add_sizes(subject.sizes, config);
  return subject;
}

Subject make_dual(const Question& question, at::Device device) {
  const DualTowerConfig config{
      .vision = swin_config(question), .text = transformer_config(question), .embed_dim = 512};
  const int64_t tokens = question.shape[2], pairs = question.shape[3];
  const auto integers = integers_on(device);
  Batch batch{.index_B = at::arange(pairs, integers),
              .image_BCHW = random_images(pairs, config.vision.image_size, device),
              .tokens_BT = at::randint(1, config.text.vocab_size, {pairs, tokens}, integers),
              .length_B = at::randint(tokens / 2, tokens + 1, {pairs}, integers)};
  const WayToRun way{question.type(), true};
  LeastWork least = swin_work(config.vision, pairs, way);
  least.add(transformer_work(config.text, pairs, tokens, false, way));
  auto task = std::make_unique<ContrastiveTask>(
      ContrastiveTask::Setup{.model = made<DualTower>(config, device), .num_tokens = tokens});
  Subject subject = training_subject(std::move(task), std::move(batch), question, std::move(least));
  add_sizes(subject.sizes, config.vision);
  add_sizes(subject.sizes, config.text);
  subject.sizes["embed_dim"] = config.embed_dim;
  return subject;
}

}  // namespace fathom::bench
