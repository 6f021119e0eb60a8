#include "models/narrowed.h"
#include "train/session_model.h"
#include "train/session_parts.h"
#include "train/task/masked_image.h"

namespace fathom {

void open_masked_image(Session& session, const SessionPlace& place) {
  RecipeConfig& recipe = session.recipe;
  check_metric(recipe, {{"masked_l1", {}}});
  const ModelInputs& inputs = recipe.data.inputs;
  const auto views = std::make_shared<const ImageViews>(inputs.image, Phase::kTrain);
  SampleSources pictures;
  for (const auto& dataset : open_training_sets(recipe))
    pictures.push_back(std::make_shared<const ImageSource>(dataset, views, recipe.seed));
  session.loader = make_loader(recipe, place, training_source(session, pictures), {});
  MaskedImageTask::Setup setup{.config = recipe.masked_image};
  if (place.collective.rank() == 0) {
    const auto val = std::make_shared<const ImageSource>(
        open_dataset(recipe.data.val), std::make_shared<const ImageViews>(inputs.image, Phase::kEvaluate),
        recipe.seed);
    setup.evaluate = [val, config = recipe.masked_image,
                      options = evaluate_options(recipe, place, 128)](MaskedImageModel model) -> Metrics {
      return {{"masked_l1", {masked_image_error(std::move(model), config, val, options), false}}};
    };
  }
  setup.model = MaskedImageModel(place.names_only ? narrowed(recipe.vision) : recipe.vision);
  note_start(session, place, place_model(*setup.model, ModelKind::kSwin, recipe, place));
  session.record["inputs"] = config_to_json(inputs);
  note_evaluation_data(session);
  session.task = std::make_unique<MaskedImageTask>(std::move(setup));
}

}  // namespace fathom
