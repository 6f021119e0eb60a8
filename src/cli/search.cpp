// fathom search MODEL --data PATH "two red cubes" | --image FILE | --audio FILE
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <algorithm>

#include "base/error.h"
#include "cli/data_argument.h"
#include "cli/opened_model.h"
#include "cli/verbs.h"
#include "data/readers/dataset_part.h"
#include "evaluate/flat_index.h"
#include "evaluate/rerank.h"
#include "evaluate/retrieval_data.h"
#include "tensor/tensor_file.h"

namespace fathom::cli {
namespace {

struct SearchOptions {
  ModelOptions model;
  DataOptions data{.split = "all"};
  std::vector<std::string> queries;
  std::string image;
  std::string audio;
  std::string find = "auto";
  std::string embeddings;
  int64_t top = 5;
  bool as_json = false;
};

void add_options(CLI::App& app, SearchOptions& options) {
  add_model_options(app, options.model, /*runs_data=*/true);
  app.add_option("queries", options.queries, "words to search by; each quoted query is answered apart")
      ->type_name("WORDS");
  app.add_option("--image", options.image, "a picture to search by")->type_name("FILE");
  app.add_option("--audio", options.audio, "a recording to search by, for models that hear")
      ->type_name("FILE");
  app.add_option("--find", options.find,
                 "what is searched: image, text or audio; auto: pictures, and captions by a picture")
      ->check(CLI::IsMember({"auto", "image", "text", "audio"}))
      ->capture_default_str();
  add_data_options(app, options.data);
  app.add_option("--embeddings", options.embeddings,
                 "what `fathom embed` wrote for the same data, to save the time")
      ->type_name("FILE");
  app.add_option("--top", options.top, "how many to show")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  app.add_flag("--json", options.as_json, "print one JSON object");
}

/// What is searched, and how a hit is shown.
struct Gallery {
  std::string kind;  ///< "image", "text" or "audio"
  std::shared_ptr<const Dataset> dataset;
  std::shared_ptr<const TextSource> texts;  ///< set when captions are searched
  std::vector<int64_t> records;             ///< of each picture or sound
  at::Tensor candidate_ND;

  const Record& record(const SearchHit& hit) const {
    return dataset->record(texts ? texts->record_of(hit.index) : records[static_cast<size_t>(hit.index)]);
  }
  Json describe(const SearchHit& hit) const {
    const Record& found = record(hit);
    Json captions = Json::array();
    if (texts)
      captions.push_back(texts->sentence(hit.index));
    else
      for (const std::string& caption : found.captions) captions.push_back(caption);
    Json json = Json::Object{
        {"score", static_cast<double>(hit.score)}, {"image", found.image_path}, {"captions", captions}};
    if (!found.audio_path.empty()) json["audio"] = found.audio_path;
    return json;
  }
};

at::Tensor read_embeddings(const std::string& path, const char* name, int64_t expected, int64_t width,
                           at::Device device) {
  const TensorMap tensors = load_tensors(path);
  const auto found = tensors.find(name);
  if (found == tensors.end() || found->second.dim() != 2 || found->second.size(0) != expected)
    fail(ErrorKind::kData,
         "{}: expected \"{}\" embeddings for {} entries of the data set; write it with the same --data and "
         "--split",
         path, name, expected);
  if (found->second.size(1) != width)
    fail(ErrorKind::kData,
         "{}: \"{}\" embeddings of width {}, this model's have {}: another model wrote them", path, name,
         found->second.size(1), width);
  return found->second.to(device);
}

/// A picture is searched for its captions, everything else for pictures, unless there are none.
std::string gallery_kind(const SearchOptions& options, const Dataset& dataset) {
  if (options.find != "auto") return options.find;
  if (!options.image.empty()) return "text";
  const auto& records = dataset.records();
  const bool has_images =
      std::any_of(records.begin(), records.end(), [](const Record& r) { return !r.image_path.empty(); });
  return options.audio.empty() || has_images ? "image" : "text";
}

void require_hearing(const OpenedModel& model) {
  if (!model.dual_tower("search")->config().audio_tower)
    fail(ErrorKind::kCheckpoint, "{}: the model has no tower for sounds", model.folder);
}

at::Tensor embed_gallery(const DualTower& tower, const OpenedModel& model, const Gallery& gallery,
                         const std::shared_ptr<const Dataset>& part) {
  if (gallery.texts) return embed_texts(tower, gallery.texts, model.evaluate);
  if (gallery.kind == "image") {
    const auto views = std::make_shared<const ImageViews>(model.inputs.image, Phase::kEvaluate);
    return embed_images(tower, std::make_shared<const ImageSource>(part, views, 0), model.evaluate);
  }
  const auto views = std::make_shared<const AudioViews>(model.inputs.audio, Phase::kEvaluate);
  return embed_sounds(tower, std::make_shared<const AudioSource>(part, views, 0), model.evaluate);
}

Gallery open_gallery(const SearchOptions& options, const OpenedModel& model) {
  const DualTower tower = model.dual_tower("search");
  Gallery gallery{.dataset = open_data(options.data, model)};
  gallery.kind = gallery_kind(options, *gallery.dataset);
  std::shared_ptr<const Dataset> part;
  if (gallery.kind == "text") {
    gallery.texts = std::make_shared<const TextSource>(
        gallery.dataset, TextEncoding(model.require_tokenizer(), model.inputs.text));
  } else {
    if (gallery.kind == "audio") require_hearing(model);
    DatasetPart found =
        records_with(gallery.dataset, gallery.kind == "image" ? &Record::image_path : &Record::audio_path);
    part = std::move(found.dataset);
    gallery.records = std::move(found.places);
  }
  const int64_t size = gallery.texts ? gallery.texts->size() : part->size();
  if (size == 0)
    fail(ErrorKind::kData, "{}: no {} to search", gallery.dataset->path(),
         gallery.kind == "text"    ? "captions"
         : gallery.kind == "image" ? "pictures"
                                   : "sounds");
  gallery.candidate_ND = options.embeddings.empty()
                             ? embed_gallery(tower, model, gallery, part)
                             : read_embeddings(options.embeddings, gallery.kind.c_str(), size,
                                               tower->config().embed_dim, model.evaluate.device);
  return gallery;
}

EvaluateOptions quietly(EvaluateOptions options) {
  options.show_progress = false;
  return options;
}

std::shared_ptr<const ImageSource> pictures(const OpenedModel& model, const std::vector<std::string>& paths) {
  std::vector<Record> records;
  for (const std::string& path : paths) records.push_back({.image_path = path});
  const auto dataset = std::make_shared<const Dataset>(paths.front(), DataFormat::kImageClasses,
                                                       std::move(records), std::make_shared<DataReport>());
  const auto views = std::make_shared<const ImageViews>(model.inputs.image, Phase::kEvaluate);
  return std::make_shared<const ImageSource>(dataset, views, 0);
}

at::Tensor embed_recording(const OpenedModel& model, const std::string& path) {
  require_hearing(model);
  const auto dataset =
      std::make_shared<const Dataset>(path, DataFormat::kJsonLines, std::vector<Record>{{.audio_path = path}},
                                      std::make_shared<DataReport>());
  const auto views = std::make_shared<const AudioViews>(model.inputs.audio, Phase::kEvaluate);
  return embed_sounds(model.dual_tower("search"), std::make_shared<const AudioSource>(dataset, views, 0),
                      quietly(model.evaluate));
}

PairSide encode_images(const OpenedModel& model, const std::vector<std::string>& paths) {
  return fathom::encode_images(model.dual_tower("search"), pictures(model, paths), quietly(model.evaluate));
}

PairSide encode_texts(const OpenedModel& model, const std::vector<std::string>& texts) {
  return fathom::encode_texts(model.dual_tower("search"),
                              TextEncoding(model.require_tokenizer(), model.inputs.text), texts,
                              quietly(model.evaluate));
}

/// Orders the hits of query `q` anew by both scores of the model.
void rerank(const SearchOptions& options, const OpenedModel& model, const Gallery& gallery, size_t q,
            std::vector<SearchHit>& hits) {
  const torch::NoGradGuard no_grad;
  std::vector<std::string> found;
  for (const SearchHit& hit : hits)
    found.push_back(gallery.texts ? gallery.texts->sentence(hit.index) : gallery.record(hit).image_path);
  const PairSide text = encode_texts(model, gallery.texts ? found : std::vector{options.queries[q]});
  const PairSide image = encode_images(model, gallery.texts ? std::vector{options.image} : found);
  const at::Tensor logits = rerank_logits(model.dual_tower("search"), text, image).flatten();
  const at::Tensor order = std::get<1>(logits.sort(/*stable=*/true, 0, /*descending=*/true)).to(at::kCPU);
  std::vector<SearchHit> ordered;
  for (int64_t k = 0; k < order.size(0); ++k)
    ordered.push_back(hits[static_cast<size_t>(order.const_data_ptr<int64_t>()[k])]);
  hits = std::move(ordered);
}

/// The best hits of each query: by embeddings, their head by region scores where the model has them.
std::vector<std::vector<SearchHit>> find(const SearchOptions& options, const OpenedModel& model,
                                         const Gallery& gallery, const at::Tensor& query_QD) {
  const bool pairs = options.queries.empty() ? !options.image.empty() && gallery.kind == "text"
                                             : gallery.kind == "image";  // what region scores compare
  const bool reranks = pairs && model.evaluate.rerank > 0 && !model.dual_tower("search")->region().is_empty();
  const int64_t head = reranks ? std::max(options.top, model.evaluate.rerank) : options.top;
  auto hits = FlatIndex(gallery.candidate_ND).search(query_QD, head);
  for (size_t q = 0; q < hits.size() && reranks; ++q) {
    std::vector<SearchHit> rest;
    const auto border = std::min(hits[q].size(), static_cast<size_t>(model.evaluate.rerank));
    rest.assign(hits[q].begin() + static_cast<std::ptrdiff_t>(border), hits[q].end());
    hits[q].resize(border);
    rerank(options, model, gallery, q, hits[q]);
    hits[q].insert(hits[q].end(), rest.begin(), rest.end());
    hits[q].resize(std::min(hits[q].size(), static_cast<size_t>(options.top)));
  }
  return hits;
}

void print_hits(const std::string& query, const Json& results) {
  fmt::print("{}\n", query);
  for (const Json& result : results.as_array()) {
    const Json::Array& captions = result.at("captions").as_array();
    const Json* sound = result.find("audio");
    fmt::print("{:>4}  {:.3f}  {}{}{}{}\n", result.at("rank").as_int(), result.at("score").as_double(),
               result.at("image").as_string(), sound ? " " + sound->as_string() : "",
               captions.empty() ? "" : "  " + captions.front().as_string(),
               captions.size() > 1 ? fmt::format(" (+{} more)", captions.size() - 1) : "");
  }
}

}  // namespace

int run_search(int argc, const char* const* argv) {
  VerbApp app("search", "Finds pictures, captions or sounds by words, a picture or a recording.");
  SearchOptions options;
  add_options(app, options);
  if (!parse_options(app, argc, argv)) return 0;
  if (!options.queries.empty() + !options.image.empty() + !options.audio.empty() != 1)
    fail(ErrorKind::kUsage,
         "give either words to search for, --image FILE or --audio FILE\nsee: fathom search --help");
  for (const std::string& query : options.queries)
    if (query.empty()) fail(ErrorKind::kUsage, "a query without words\nsee: fathom search --help");

  const OpenedModel model = open_model(options.model);
  const DualTower tower = model.dual_tower("search");
  const bool by_words = !options.queries.empty();
  const std::string& file = options.audio.empty() ? options.image : options.audio;
  const at::Tensor query_QD =
      by_words                ? embed_texts(tower, TextEncoding(model.require_tokenizer(), model.inputs.text),
                                            options.queries, model.evaluate)
      : options.audio.empty() ? embed_images(tower, pictures(model, {file}), quietly(model.evaluate))
                              : embed_recording(model, file);
  const Gallery gallery = open_gallery(options, model);
  const auto hits = find(options, model, gallery, query_QD);

  Json answers = Json::array();
  for (size_t q = 0; q < hits.size(); ++q) {
    Json results = Json::array();
    for (size_t k = 0; k < hits[q].size(); ++k) {
      Json result = Json::Object{{"rank", static_cast<int64_t>(k + 1)}};
      const Json found = gallery.describe(hits[q][k]);
      for (const auto& [key, value] : found.as_object()) result[key] = value;
      results.push_back(std::move(result));
    }
    const std::string& query = by_words ? options.queries[q] : file;
    if (!options.as_json) print_hits(query, results);
    answers.push_back(Json::Object{{"query", query}, {"results", std::move(results)}});
  }
  if (options.as_json) print_json(Json::Object{{"queries", std::move(answers)}});
  return 0;
}

}  // namespace fathom::cli
