#include "models/narrowed.h"
#include "train/session_model.h"
#include "train/session_parts.h"
#include "train/task/masked_audio.h"

namespace fathom {

void open_masked_audio(Session& session, const SessionPlace& place) {
  RecipeConfig& recipe = session.recipe;
  check_metric(recipe, {{"masked_l1", {}}});
  const ModelInputs& inputs = recipe.data.inputs;
  const auto views = std::make_shared<const AudioViews>(inputs.audio, Phase::kTrain);
  SampleSources sounds;
  for (const auto& dataset : open_training_sets(recipe))
    sounds.push_back(std::make_shared<const AudioSource>(dataset, views, recipe.seed));
  // Equal shapes let a step be recorded.
  const bool on_cpu = place.runtime.device().is_cpu();
  session.loader = make_loader(recipe, place, training_source(session, sounds),
                               {.pad_frames_to = on_cpu ? 0 : inputs.audio.max_frames()});
  MaskedAudioTask::Setup setup{.config = recipe.masked_audio, .num_frames = inputs.audio.max_frames()};
  if (place.collective.rank() == 0) {
    const auto val = std::make_shared<const AudioSource>(
        open_dataset(recipe.data.val), std::make_shared<const AudioViews>(inputs.audio, Phase::kEvaluate),
        recipe.seed);
    setup.evaluate = [val, config = recipe.masked_audio,
                      options = evaluate_options(recipe, place, 128)](MaskedAudioModel model) -> Metrics {
      return {{"masked_l1", {masked_audio_error(std::move(model), config, val, options), false}}};
    };
  }
  setup.model = MaskedAudioModel(place.names_only ? narrowed(recipe.audio) : recipe.audio);
  note_start(session, place, place_model(*setup.model, ModelKind::kAudio, recipe, place));
  session.record["inputs"] = config_to_json(inputs);
  note_evaluation_data(session);
  session.task = std::make_unique<MaskedAudioTask>(std::move(setup));
}

}  // namespace fathom
