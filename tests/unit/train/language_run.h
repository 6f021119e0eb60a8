// A small language model, with dropout, trained on the sentences of trainer_fixture.h.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "nn/init.h"
#include "temporary_folder.h"
#include "train/task/language.h"
#include "trainer_fixture.h"

namespace fathom::testing {

struct LanguageOutcome {
  std::vector<double> losses;
  std::vector<double> loss_scale, saturated_casts;  ///< where the loss was scaled
  at::Tensor weights;
};

/// What is changed of a run.
struct LanguageChange {
  std::function<void(TrainerConfig&)> config = [](TrainerConfig&) {};
  std::function<void(LanguageModel&)> model = [](LanguageModel&) {};
  std::function<std::unique_ptr<LanguageTask>(LanguageTask::Setup)> task = [](LanguageTask::Setup setup) {
    return std::make_unique<LanguageTask>(std::move(setup));
  };
  at::Device device = at::kCPU;
};

inline LanguageOutcome train_language(const LanguageChange& change) {
  const TemporaryFolder folder;
  TrainerConfig config = small_config(folder.path());
  change.config(config);
  LanguageModel model(LanguageModelConfig{.vocab_size = 16,
                                          .dim = 32,
                                          .layers = 2,
                                          .heads = 2,
                                          .max_positions = 8,
                                          .dropout = 0.2,
                                          .drop_path = 0.2});
  init_parameters(*model, 5);
  change.model(model);
  model->to(change.device);
  const auto task = change.task({.model = model, .num_tokens = 3});
  Loader loader(LoaderSetup{.source = std::make_shared<SentenceSource>(),
                            .sampler = {.batch_size = config.training.batch_size, .seed = config.seed},
                            .loader = {.workers = 0}});
  const auto collective = make_solo_collective();
  const auto runtime = make_device_runtime(change.device);
  Trainer(config, {*task, loader, *collective, *runtime}).run();
  std::vector<at::Tensor> weights;
  for (const auto& parameter : model->parameters()) weights.push_back(parameter.detach().cpu().flatten());
  return {logged(folder.path(), "loss"), logged(folder.path(), "loss_scale"),
          logged(folder.path(), "saturated_casts"), at::cat(weights)};
}

inline LanguageOutcome train_language(const std::function<void(TrainerConfig&)>& change) {
  return train_language(LanguageChange{.config = change});
}

}  // namespace fathom::testing
