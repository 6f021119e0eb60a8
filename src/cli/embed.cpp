// fathom embed MODEL --data PATH --out FILE
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "cli/data_argument.h"
#include "cli/opened_model.h"
#include "cli/verbs.h"
#include "data/readers/dataset_part.h"
#include "evaluate/npy.h"
#include "evaluate/retrieval_data.h"
#include "tensor/cpu_runtime.h"
#include "tensor/tensor_file.h"

namespace fathom::cli {
namespace {

struct EmbedOptions {
  ModelOptions model;
  DataOptions data;
  std::string out;
  std::string what = "all";
  bool as_json = false;
};

void add_options(CLI::App& app, EmbedOptions& options) {
  add_model_options(app, options.model, /*runs_data=*/true);
  add_data_options(app, options.data);
  app.add_option("--out", options.out, "file to write: .safetensors, or .npy for one array")
      ->required()
      ->check(in_a_folder())
      ->type_name("FILE");
  app.add_option("--what", options.what,
                 "image, text, audio or all (text: captions in the order of the rows)")
      ->check(CLI::IsMember({"image", "text", "audio", "all"}))
      ->capture_default_str();
  app.add_flag("--json", options.as_json, "print one JSON object");
}

/// "image" [I, D], "text" [C, D] and "image_of_caption" [C], "audio" [A, D] as far as they are wanted and
/// there; "record_of_image" [I] and "record_of_audio" [A] where not every row has one.
TensorMap embed(const EmbedOptions& options, const OpenedModel& model,
                std::shared_ptr<const Dataset> dataset) {
  TensorMap found;
  const DualTower tower = model.dual_tower("embed");
  const auto& records = dataset->records();
  const bool has_images =
      std::any_of(records.begin(), records.end(), [](const Record& r) { return !r.image_path.empty(); });
  const auto note_places = [&](const char* name, const DatasetPart& part) {
    if (part.dataset->size() < dataset->size()) found[name] = torch::tensor(part.places, at::kLong);
  };
  const bool audio_tower = tower->config().audio_tower;
  if (options.what == "image" || (options.what == "all" && has_images)) {
    const auto views = std::make_shared<const ImageViews>(model.inputs.image, Phase::kEvaluate);
    const DatasetPart pictures =
        audio_tower ? records_with(dataset, &Record::image_path) : DatasetPart{dataset};
    if (pictures.dataset->size() > 0)
      found["image"] = embed_images(tower, std::make_shared<const ImageSource>(pictures.dataset, views, 0),
                                    model.evaluate);
    note_places("record_of_image", pictures);
  }
  if (options.what == "audio" && !audio_tower)
    fail(ErrorKind::kCheckpoint, "{}: the model has no tower for sounds", model.folder);
  const DatasetPart sounds = records_with(dataset, &Record::audio_path);
  if (audio_tower && (options.what == "audio" || options.what == "all") && sounds.dataset->size() > 0) {
    const auto views = std::make_shared<const AudioViews>(model.inputs.audio, Phase::kEvaluate);
    found["audio"] =
        embed_sounds(tower, std::make_shared<const AudioSource>(sounds.dataset, views, 0), model.evaluate);
    note_places("record_of_audio", sounds);
  }
  const bool has_texts = std::any_of(records.begin(), records.end(),
                                     [](const Record& r) { return !r.captions.empty() || !r.text.empty(); });
  if ((options.what == "text" || options.what == "all") && has_texts) {
    const auto texts = std::make_shared<const TextSource>(
        dataset, TextEncoding(model.require_tokenizer(), model.inputs.text));
    found["text"] = embed_texts(tower, texts, model.evaluate);
    std::vector<int64_t> owner;
    for (int64_t c = 0; c < texts->size(); ++c) owner.push_back(texts->record_of(c));
    found["image_of_caption"] = torch::tensor(owner, at::kLong);
  }
  return found;
}

void write_embeddings(const EmbedOptions& options, const TensorMap& found, const Dataset& dataset) {
  if (found.empty() || (options.what != "all" && !found.contains(options.what)))
    fail(ErrorKind::kData, "{}: there is no {} to embed", dataset.path(),
         options.what == "all" ? "image, text or audio" : options.what);
  if (std::filesystem::path(options.out).extension() == ".npy")
    return write_npy(options.out, found.at(options.what));
  Json pictures = Json::array(), sounds = Json::array();
  for (const Record& record : dataset.records()) {
    pictures.push_back(record.image_path);
    sounds.push_back(record.audio_path);
  }
  std::map<std::string, std::string> notes{{"image_paths", pictures.dump()}, {"data", dataset.path()}};
  if (found.contains("audio")) notes["audio_paths"] = sounds.dump();
  save_tensors(options.out, found, notes);
}

}  // namespace

int run_embed(int argc, const char* const* argv) {
  VerbApp app("embed", "Writes the embeddings of a data set: unit-length float32 rows.");
  EmbedOptions options;
  add_options(app, options);
  if (!parse_options(app, argc, argv)) return 0;
  const std::string extension = std::filesystem::path(options.out).extension();
  if (extension != ".npy" && extension != ".safetensors")
    fail(ErrorKind::kUsage, "--out {}: the name must end in .safetensors or .npy", options.out);
  if (extension == ".npy" && options.what == "all") options.what = "image";

  keep_freed_memory();
  const OpenedModel model = open_model(options.model);
  const std::shared_ptr<const Dataset> dataset = open_data(options.data, model);
  const TensorMap found = embed(options, model, dataset);
  write_embeddings(options, found, *dataset);
  Json summary = Json::Object{{"out", options.out}};
  for (const auto& [name, tensor] : found) {
    summary[name] = Json(Json::Array(tensor.sizes().begin(), tensor.sizes().end()));
    if (!options.as_json) fmt::print("{}: {} {}\n", options.out, name, fmt::join(tensor.sizes(), " × "));
  }
  if (options.as_json) print_json(summary);
  return 0;
}

}  // namespace fathom::cli
