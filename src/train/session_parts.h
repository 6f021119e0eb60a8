// What the sessions of all tasks are put together from.
#pragma once

#include <memory>

#include "batch/loader.h"
#include "evaluate/options.h"
#include "train/recipe.h"
#include "train/session.h"

namespace fathom {

EvaluateOptions evaluate_options(const RecipeConfig& recipe, const SessionPlace& place, int64_t batch_size);

std::unique_ptr<Loader> make_loader(const RecipeConfig& recipe, const SessionPlace& place,
                                    std::shared_ptr<const SampleSource> source, const CollateConfig& collate);

/// Fills in the task, the loader and the record of `session`, whose recipe is resolved.
void open_classification(Session& session, const SessionPlace& place);

}  // namespace fathom
