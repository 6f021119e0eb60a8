#include "cli/opened_model.h"

#include <charconv>
#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "kernels/weight_copies.h"
#include "models/lora.h"
#include "nn/token_gate.h"
#include "tensor/device.h"
#include "train/trainer_config.h"

namespace fathom::cli {
namespace {

/// A run's best model lies in RUN/model.
std::string model_folder_of(const std::string& path) {
  const std::filesystem::path folder(path);
  if (!std::filesystem::exists(folder)) fail(ErrorKind::kCheckpoint, "{}: no such folder", path);
  if (!std::filesystem::is_directory(folder))
    fail(ErrorKind::kCheckpoint, "{}: not a model folder, but a file", path);
  if (std::filesystem::is_directory(folder / "model")) return (folder / "model").string();
  if (std::filesystem::exists(folder / "log.jsonl"))
    fail(ErrorKind::kCheckpoint, "{}: this run has not written a model yet", path);
  return path;
}

/// "FOLDER" or "FOLDER:WEIGHT".
std::pair<std::string, double> split_weight(const std::string& adapter) {
  const size_t colon = adapter.rfind(':');
  if (colon == std::string::npos) return {adapter, 1.0};
  double weight = 0;
  const char* end = adapter.data() + adapter.size();
  const auto [rest, error] = std::from_chars(adapter.data() + colon + 1, end, weight);
  if (error != std::errc() || rest != end || !std::isfinite(weight)) return {adapter, 1.0};
  return {adapter.substr(0, colon), weight};
}

void add_adapters(LoadedModel& loaded, const std::vector<std::string>& adapters) {
  for (size_t i = 0; i < adapters.size(); ++i) {
    const auto [path, weight] = split_weight(adapters[i]);
    add_adapter_folder(loaded, model_folder_of(path), fmt::format("{}", i), weight);
  }
  merge_adapters(loaded.module());
}

[[noreturn]] void wrong_kind(const OpenedModel& model, const char* purpose, ModelKind needed) {
  fail(ErrorKind::kCheckpoint, "{}: {} needs a model of kind {}, this one is {}", model.folder, purpose,
       model_kind_name(needed), model_kind_name(model.loaded.kind));
}

/// A model that learned to skip is not the one that it would be without.
void run_dense(OpenedModel& model) {
  const std::vector<NamedGate> gates = gates_of(model.loaded.module());
  if (gates.empty()) return;
  log::warning("{}: this model was trained to skip tokens; with --dense it computes all of them",
               model.folder);
  for (auto [name, gate] : gates) gate->set_bypassed(true);
}

/// The weights stay as they are from here on: what a pass makes of them alone is made once.
void settle(OpenedModel& model) {
  model.evaluate.settled = true;
  if (model.evaluate.compute_dtype)
    model.evaluate.copies = std::make_shared<kernels::WeightCopies>(model.loaded.module().parameters(),
                                                                    *model.evaluate.compute_dtype);
}

/// What training left in the folder's record, else a hundred.
int64_t recorded_rerank(const OpenedModel& model) {
  const Json* recorded = model.loaded.extras.record.find("rerank");
  if (!recorded) return EvaluationConfig{}.rerank;
  if (!recorded->is_int())
    fail(ErrorKind::kCheckpoint, "{}/fathom.json: record.rerank: expected an integer, got {}", model.folder,
         recorded->kind_name());
  return recorded->as_int();
}

}  // namespace

void add_model_options(CLI::App& app, ModelOptions& options, bool runs_data) {
  app.add_option("model", options.path, "model folder, or a run (its best model)")
      ->required()
      ->type_name("MODEL");
  app.add_option("--device", options.device, "auto, cpu, cuda or cuda:N")->capture_default_str();
  app.add_option("--precision", options.precision, "of activations and matrix products")
      ->check(CLI::IsMember({"fp32", "bf16"}))
      ->capture_default_str();
  app.add_option("--adapter", options.adapters,
                 "folder of low-rank adapters to add to the model, FOLDER or FOLDER:WEIGHT; may be repeated")
      ->take_all()
      ->allow_extra_args(false)
      ->type_name("FOLDER");
  app.add_flag("--dense", options.dense,
               "compute every token in every layer, whatever the model's gates say");
  if (!runs_data) return;
  app.add_option("--batch-size", options.batch_size, "samples at once")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--workers", options.workers, "threads that load data")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--rerank", options.rerank,
                 "candidates at a ranking's head that region scores order anew, where the model has them; 0: "
                 "none (default: as in training)")
      ->check(at_least(0));
}

DualTower OpenedModel::dual_tower(const char* purpose) const {
  if (loaded.kind != ModelKind::kDualTower) wrong_kind(*this, purpose, ModelKind::kDualTower);
  return loaded.dual_tower;
}

LanguageModel OpenedModel::language(const char* purpose) const {
  if (loaded.kind != ModelKind::kLanguage) wrong_kind(*this, purpose, ModelKind::kLanguage);
  return loaded.language;
}

Fusion OpenedModel::fusion(const char* purpose) const {
  if (loaded.kind != ModelKind::kFusion) wrong_kind(*this, purpose, ModelKind::kFusion);
  return loaded.fusion;
}

Classifier OpenedModel::classifier(const char* purpose) const {
  if (loaded.kind != ModelKind::kClassifier) wrong_kind(*this, purpose, ModelKind::kClassifier);
  return loaded.classifier;
}

std::shared_ptr<const Tokenizer> OpenedModel::require_tokenizer() const {
  if (!tokenizer) fail(ErrorKind::kCheckpoint, "{}: no tokenizer.json", folder);
  return tokenizer;
}

OpenedModel open_model(const ModelOptions& options) {
  OpenedModel model{.folder = model_folder_of(options.path)};
  model_kind(model.folder);  // what is no model is said before a device is opened
  model.evaluate = {.device = select_device(options.device),
                    .batch_size = options.batch_size,
                    .workers = options.workers,
                    .show_progress = true};
  if (options.precision == "bf16") model.evaluate.compute_dtype = at::kBFloat16;
  model.loaded = load_model_folder(model.folder, {.device = model.evaluate.device});
  add_adapters(model.loaded, options.adapters);
  if (options.dense) run_dense(model);
  settle(model);
  model.tokenizer = model_tokenizer(model.loaded, model.folder);
  model.inputs = model_inputs(model.loaded, model.tokenizer.get(), model.folder);
  model.evaluate.rerank = options.rerank >= 0 ? options.rerank : recorded_rerank(model);
  return model;
}

}  // namespace fathom::cli
