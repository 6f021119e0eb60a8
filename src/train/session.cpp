#include "train/session.h"

#include "base/log.h"
#include "base/version.h"
#include "train/idle_settings.h"
#include "train/session_parts.h"

namespace fathom {

Json MixShare::to_json() const {
  return Json::Object{
      {"data", data}, {"weight", weight}, {"samples", samples}, {"epoch_samples", epoch_samples}};
}

TrainerConfig Session::trainer_config(const std::string& run_folder) const {
  return {.seed = recipe.seed,
          .precision = recipe.precision,
          .fp8 = recipe.fp8,
          .training = recipe.training,
          .optimizer = recipe.optimizer,
          .loss_scale = recipe.loss_scale,
          .schedule = recipe.schedule,
          .checkpoint = recipe.checkpoint,
          .evaluation = recipe.evaluation,
          .gating = recipe.gating,
          .parallel = recipe.parallel,
          .run_folder = run_folder,
          .recipe = config_to_json(recipe),
          .record = record};
}

namespace {

/// Where a device does not compute as the recipe says.
void warn_of_precision(Precision precision, DeviceRuntime& runtime) {
  const at::Device device = runtime.device();
  if (precision == Precision::kBf16 && device.is_cpu() && !runtime.is_fast(at::kBFloat16))
    log::warning(
        "precision = \"bf16\": this processor has no instructions for it; products are made in float32, and "
        "\"fp32\" is faster");
  if (is_reference(precision, device))
    log::warning(
        "precision = \"{0}\" on a CPU is a reference to compare with: operands are rounded to {1} and "
        "multiplied in float32, which is slower than \"fp32\"",
        precision == Precision::kFp8 ? "fp8" : "fp16_bf16", precision == Precision::kFp8 ? "FP8" : "FP16");
  if (precision == Precision::kFp8 && !device.is_cpu() && !kernels::has_fp8_products(device))
    log::warning("precision = \"fp8\": {} has no products in FP8, which stay in BF16, as under \"bf16\"",
                 device.str());
}

/// What the trainer does with names, to parameters that nobody trains.
void check_names(const Session& session) {
  const NamedParameters parameters = session.task->parameters();
  freeze_parameters(parameters, session.recipe.optimizer.freeze);
  freeze_lower_layers(parameters, session.recipe.optimizer.freeze_layers);
  group_parameters(parameters, session.recipe.optimizer);
}

}  // namespace

Session open_session(const RecipeConfig& recipe, const SessionPlace& place) {
  check_ranks(recipe, place.collective.size());
  Session session{.recipe = resolve(recipe)};
  if (place.collective.rank() == 0)
    for (const std::string& setting : idle_settings(session.recipe))
      log::warning("without effect: {}", setting);
  if (place.collective.rank() == 0) warn_of_precision(recipe.precision, place.runtime);
  switch (session.recipe.task) {
    case TaskKind::kContrastive:
      open_contrastive(session, place);
      break;
    case TaskKind::kLanguage:
      open_language(session, place);
      break;
    case TaskKind::kAnswers:
      open_answers(session, place);
      break;
    case TaskKind::kClassification:
      open_classification(session, place);
      break;
    case TaskKind::kMaskedImage:
      open_masked_image(session, place);
      break;
    case TaskKind::kMaskedAudio:
      open_masked_audio(session, place);
      break;
    case TaskKind::kMaskedToken:
      open_masked_token(session, place);
      break;
  }
  if (place.names_only) check_names(session);
  session.record["trained_with"] = Json::Object{{"fathom", version()},
                                                {"commit", commit()},
                                                {"device", place.runtime.name()},
                                                {"processes", place.collective.size()}};
  return session;
}

}  // namespace fathom
