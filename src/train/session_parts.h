// What the sessions of all tasks are put together from.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "batch/loader.h"
#include "batch/sample_source.h"
#include "data/readers/dataset.h"
#include "evaluate/options.h"
#include "train/initial_weights.h"
#include "train/session.h"
#include "train/task.h"

namespace fathom {

EvaluateOptions evaluate_options(const RecipeConfig& recipe, const SessionPlace& place, int64_t batch_size);

/// This rank's part of the recipe's batches.
std::unique_ptr<Loader> make_loader(const RecipeConfig& recipe, const SessionPlace& place,
                                    std::shared_ptr<const SampleSource> source, const CollateConfig& collate,
                                    OrderHook order = {});

/// `figures`: what an evaluation of this recipe will give. Errors (kConfig): a metric that it will not have
/// is said now, not hours later.
void check_metric(const RecipeConfig& recipe, const Metrics& figures);

/// The folder whose adapters alone are to be kept; empty: whole models are.
std::string adapter_base_of(const RecipeConfig& recipe);

/// Says what training begins with, in the log and in the models it will leave.
void note_start(Session& session, const SessionPlace& place, const InitReport& report);

/// Says in the models it will leave what `data.val` is and how it is read: their evaluation's default.
void note_evaluation_data(Session& session);
/// The same of `data.val_files`.
void note_evaluation_texts(Session& session);

using SampleSources = std::vector<std::shared_ptr<const SampleSource>>;

/// The recipe's `training_sets`, read.
std::vector<std::shared_ptr<const Dataset>> open_training_sets(const RecipeConfig& recipe);

/// The sources of the recipe's `training_items`, in their order, as the one that is trained on: by weight
/// where there is a mixture, whose shares go into the session. Errors: kData for a source without samples,
/// those of `MixedSource`.
std::shared_ptr<const SampleSource> training_source(Session& session, const SampleSources& sources);

/// A session of task = "contrastive": fills in what `open_session` began.
void open_contrastive(Session& session, const SessionPlace& place);
/// The same of task = "language".
void open_language(Session& session, const SessionPlace& place);
/// The same of task = "answers".
void open_answers(Session& session, const SessionPlace& place);
/// The same of task = "classification".
void open_classification(Session& session, const SessionPlace& place);
/// The same of task = "masked_image".
void open_masked_image(Session& session, const SessionPlace& place);
/// The same of task = "masked_audio".
void open_masked_audio(Session& session, const SessionPlace& place);
/// The same of task = "masked_token".
void open_masked_token(Session& session, const SessionPlace& place);

}  // namespace fathom
