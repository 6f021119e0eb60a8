#include "train/trainer_config.h"

#include <algorithm>

#include "base/error.h"

namespace fathom {

void TrainingConfig::fields(Fields& f) {
  f("batch_size", batch_size, "samples a step, over all ranks", {.low = 1});
  f("micro_batch_size", micro_batch_size,
    "most samples that one rank computes at once; a larger share is accumulated; 0 takes all at once",
    {.low = 0});
  f("epochs", epochs, "passes through the training data; 0: only max_steps counts", {.low = 0});
  f("max_steps", max_steps, "most steps; 0: only epochs count", {.low = 0});
  f("max_seconds", max_seconds,
    "end the run, evaluating and saving as after its last step, once it has taken so many seconds; all "
    "since its first step count: steps, evaluations and saving, those of former parts that a resumed run "
    "goes on from too; 0 is unlimited",
    {.low = 0});
  f("checkpoint_blocks", checkpoint_blocks,
    "keep only each block's input for the backward pass and compute its inside again: less memory, more "
    "time");
  f("average_decay", average_decay,
    "decay of a moving average of the weights, which is then evaluated and saved; 0 for none",
    {.low = 0, .high = 0.999999});
  f("record_step", record_step,
    "on a GPU, with one process: record a step's work once and replay it, which spares the host launching "
    "it");
  f("deterministic", deterministic,
    "on a GPU take algorithms that add up in one order, and end the run where LibTorch has none; may be "
    "slower; a CPU repeats runs bit for bit anyway");
  f("weight_copies", weight_copies,
    "with precision bf16, fp16_bf16, or fp8 where that stays BF16: keep the weights of products in 16 bits "
    "too, 2 bytes a weight, written by the optimizer in its own pass, instead of casting them in every pass");
  f("log_every", log_every, "steps between lines of the log, which give means over them", {.low = 1});
}

void TrainingConfig::validate() const {
  if (epochs == 0 && max_steps == 0)
    fail(ErrorKind::kConfig, "one of epochs and max_steps must say where the run ends");
  if (micro_batch_size > batch_size)
    fail(ErrorKind::kConfig, "micro_batch_size ({}) is larger than batch_size ({})", micro_batch_size,
         batch_size);
}

int64_t num_steps(const TrainingConfig& config, int64_t batches_per_epoch) {
  const int64_t by_epochs = config.epochs * batches_per_epoch;
  if (config.max_steps == 0) return by_epochs;
  return config.epochs == 0 ? config.max_steps : std::min(by_epochs, config.max_steps);
}

void CheckpointConfig::fields(Fields& f) {
  f("every", every, "steps between training states, from which a run can go on; 0: only at the end",
    {.low = 0});
  f("keep", keep, "training states that are kept, the newest; 0 keeps all", {.low = 0});
  f("model_every", model_every, "steps between whole models under models/; 0 for none", {.low = 0});
  f("keep_models", keep_models, "such models that are kept, the newest; 0 keeps all", {.low = 0});
}

void EvaluationConfig::fields(Fields& f) {
  f("every", every, "steps between evaluations; 0: only at the end", {.low = 0});
  f("at_end", at_end, "evaluate when training ends");
  f("metric", metric, "figure that decides which model is best; empty takes the task's own");
  f("patience", patience, "evaluations without improvement after which training stops; 0: never", {.low = 0});
  f("min_improvement", min_improvement, "what counts as an improvement", {.low = 0});
  f("rerank", rerank,
    "retrieval with region scores: candidates at the head of the global ranking that both scores together "
    "order "
    "anew; 0 leaves the global ranking",
    {.low = 0});
}

}  // namespace fathom
