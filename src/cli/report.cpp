// fathom report RUN [--html FILE]
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/torch.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/progress.h"
#include "cli/data_argument.h"
#include "cli/masked_token_data.h"
#include "cli/opened_model.h"
#include "cli/verbs.h"
#include "report/run_report.h"
#include "runtime/generate.h"
#include "tensor/device_runtime.h"

namespace fathom::cli {
namespace {

struct ReportOptions {
  ModelOptions model;
  DataOptions data;
  std::string html;
  ExhibitOptions exhibits;
  bool as_json = false;
};

void add_options(CLI::App& app, ReportOptions& options) {
  add_model_options(app, options.model, /*runs_data=*/true);
  add_data_options(app, options.data);
  app.add_option("--html", options.html, "file to write (default: RUN/report.html)")
      ->check(in_a_folder())
      ->type_name("FILE");
  app.add_option("--queries", options.exhibits.count, "examples of each kind")
      ->check(CLI::Range(0, 200))
      ->capture_default_str();
  app.add_option("--seed", options.exhibits.seed, "draws the examples")->capture_default_str();
  app.add_flag("--json", options.as_json, "print one JSON object");
}

int64_t num_parameters(const OpenedModel& model) {
  if (model.loaded.kind == ModelKind::kLanguage) return parameter_count(model.loaded.language->config());
  if (model.loaded.kind == ModelKind::kSwin) return parameter_count(model.loaded.vision->config());
  if (model.loaded.kind == ModelKind::kFusion) return parameter_count(model.loaded.fusion->config());
  if (model.loaded.kind == ModelKind::kAudio) return parameter_count(model.loaded.audio->config());
  if (model.loaded.kind == ModelKind::kClassifier) return parameter_count(model.loaded.classifier->config());
  return parameter_count(model.loaded.dual_tower->config());
}

std::string shape_text(const LanguageModelConfig& config) {
  return fmt::format("{} layers × {}, {} heads, vocabulary {}, {} positions, {}", config.layers, config.dim,
                     config.heads, config.vocab_size, config.max_positions,
                     config.attention == AttentionKind::kCausal ? "causal" : "bidirectional");
}

std::string shape_text(const SwinConfig& config) {
  return fmt::format("Swin, width {}, depths {}, window {}, {} pixels", config.dim,
                     fmt::join(config.depths, "-"), config.window, config.image_size);
}

std::string shape_text(const AudioEncoderConfig& config) {
  return fmt::format("{} layers × {}, {} heads, {} mel bands{}", config.layers, config.dim, config.heads,
                     config.bands,
                     config.groups() > 1 ? fmt::format(" in {} sub-bands", config.groups()) : "");
}

/// The keys of the recipe that a reader asks for first; all of it stands below the cards.
void add_recipe_facts(const Json& record, CardFacts& facts) {
  const Json* recipe = record.find("recipe");
  if (!recipe) return;
  const std::set<std::string> shown = {"task",
                                       "seed",
                                       "precision",
                                       "training.batch_size",
                                       "training.epochs",
                                       "optimizer.learning_rate",
                                       "optimizer.weight_decay",
                                       "schedule.shape"};
  for (auto& fact : flatten_facts(*recipe))
    if (shown.contains(fact.first) && (fact.first == "seed" || fact.second != "0"))
      facts.push_back(std::move(fact));
}

CardFacts model_card(const OpenedModel& model, const RunHistory& history) {
  CardFacts facts = {{"kind", model_kind_name(model.loaded.kind)}};
  if (model.loaded.kind == ModelKind::kDualTower) {
    const DualTowerConfig& config = model.loaded.dual_tower->config();
    facts.emplace_back("image encoder", shape_text(config.vision));
    facts.emplace_back("text encoder", shape_text(config.text));
    facts.emplace_back("shared space", fmt::format("{} dimensions", config.embed_dim));
  }
  if (model.loaded.kind == ModelKind::kLanguage)
    facts.emplace_back(
        model.loaded.language->config().attention == AttentionKind::kCausal ? "decoder" : "text encoder",
        shape_text(model.loaded.language->config()));
  if (model.loaded.kind == ModelKind::kSwin)
    facts.emplace_back("image encoder", shape_text(model.loaded.vision->config()));
  if (model.loaded.kind == ModelKind::kFusion) {
    const FusionConfig& config = model.loaded.fusion->config();
    facts.emplace_back("fusion", fusion_name(config.fusion));
    if (config.sees()) facts.emplace_back("image encoder", shape_text(config.vision));
    facts.emplace_back("language model", shape_text(config.text));
    if (config.num_classes() > 0) facts.emplace_back("answers", fmt::format("{}", config.num_classes()));
  }
  if (model.loaded.kind == ModelKind::kAudio)
    facts.emplace_back("audio encoder", shape_text(model.loaded.audio->config()));
  if (model.loaded.kind == ModelKind::kDualTower && model.loaded.dual_tower->config().audio_tower)
    facts.emplace_back("audio encoder", shape_text(model.loaded.dual_tower->config().audio));
  if (model.loaded.kind == ModelKind::kClassifier) {
    const ClassifierConfig& config = model.loaded.classifier->config();
    if (config.encoder == EncoderKind::kAudio) facts.emplace_back("audio encoder", shape_text(config.audio));
    if (config.encoder == EncoderKind::kImage) facts.emplace_back("image encoder", shape_text(config.vision));
    if (config.encoder == EncoderKind::kText) facts.emplace_back("text encoder", shape_text(config.text));
    facts.emplace_back("classes", fmt::format("{}", config.classes.size()));
  }
  facts.emplace_back("parameters",
                     fmt::format("{:.2f} million", static_cast<double>(num_parameters(model)) / 1e6));
  Json rest = model.loaded.extras.record;
  for (const char* apart : {"recipe", "inputs", "evaluation", "evaluation_data"}) {
    if (!rest.is_object()) break;
    std::erase_if(rest.as_object(), [&](const auto& member) { return member.first == apart; });
  }
  for (auto& fact : flatten_facts(rest)) facts.push_back(std::move(fact));
  add_recipe_facts(model.loaded.extras.record, facts);
  if (const auto clock = history.training.find("seconds"); clock != history.training.end())
    facts.emplace_back("training time", format_duration(clock->second.back().y));
  facts.emplace_back("evaluated on", make_device_runtime(model.evaluate.device)->name());
  return facts;
}

CardFacts data_card(const Dataset& dataset, const DatasetConfig& config) {
  const bool has_split = !config.split_if_named || dataset.record(0).tags.contains("split");
  int64_t captions = 0, questions = 0;
  for (const Record& record : dataset.records()) {
    captions += static_cast<int64_t>(record.captions.size());
    questions += !record.question.empty();
  }
  return {{"evaluated on", std::filesystem::path(dataset.path()).lexically_normal().string()},
          {"format", format_name(dataset.format())},
          {"split", has_split && !config.split.empty() ? config.split : "all"},
          {questions > 0 ? "questions" : "rows", fmt::format("{}", dataset.size())},
          {"captions", fmt::format("{}", captions)},
          {"problems skipped", fmt::format("{}", dataset.report().count())}};
}

void add_training_data(const Json& record, CardFacts& facts) {
  const Json* recipe = record.find("recipe");
  const Json* data = recipe ? recipe->find("data") : nullptr;
  if (!data) return;
  const auto text = [](const Json* object, const char* key) -> std::string {
    const Json* value = object ? object->find(key) : nullptr;
    return value && value->is_string() ? value->as_string() : "";
  };
  const auto add = [&](const Json* rows, const Json* files, const std::string& share) {
    if (const std::string path = text(rows, "path"); !path.empty())
      facts.emplace_back("trained on", fmt::format("{} ({}){}", path, text(rows, "split"), share));
    if (files && files->is_array())
      for (const Json& file : files->as_array())
        if (file.is_string()) facts.emplace_back("trained on", file.as_string() + share);
  };
  add(data->find("train"), data->find("train_files"), "");
  const Json* mix = data->find("mix");
  if (!mix || !mix->is_array()) return;
  for (const Json& item : mix->as_array()) {
    const Json* weight = item.find("weight");
    const std::string share = weight ? fmt::format(", weight {}", weight->dump()) : "";
    add(item.find("data"), item.find("files"), share);
    add(nullptr, item.find("chat_files"), share);
  }
}

void add_retrieval(const ReportOptions& options, const OpenedModel& model, RunReportContent& content) {
  const std::shared_ptr<const Dataset> dataset = open_data(options.data, model);
  const DualTower tower = model.dual_tower("report");
  const RetrievalData data(dataset, model.inputs, model.require_tokenizer(),
                           {.audio_tower = tower->config().audio_tower});
  const MeasuredData measured = measure_retrieval(tower, data, model.evaluate);
  content.retrieval = measured.report;
  const MeasuredRetrieval shown{data, measured.input, measured.global};
  content.text_to_image = exhibit_text_to_image(shown, options.exhibits);
  content.image_to_text = exhibit_image_to_text(shown, options.exhibits);
  content.sounds = exhibit_sounds(data, measured, options.exhibits);
  content.gates = exhibit_gates({.vision = tower->vision(), .text = tower->text(), .audio = tower->audio()},
                                gate_samples(data, options.exhibits), model.tokenizer.get(), model.evaluate);
  content.data_card = data_card(*dataset, data_config(options.data, model));
}

/// Accuracy; sounds as the model hears them.
void add_classification(const ReportOptions& options, const OpenedModel& model, RunReportContent& content) {
  const std::shared_ptr<const Dataset> dataset = open_data(options.data, model);
  const Classifier classifier = model.classifier("report");
  const ClassifierData data(classifier->config(), dataset, model.inputs,
                            classifier->text() ? model.require_tokenizer() : nullptr, Phase::kEvaluate,
                            /*seed=*/0);
  content.classification = evaluate_classifier(classifier, data, model.evaluate);
  if (classifier->audio())
    content.sounds = exhibit_classified_sounds(classifier, data, model.evaluate, options.exhibits);
  content.gates = exhibit_gates(
      {.vision = classifier->vision(), .text = classifier->text(), .audio = classifier->audio()},
      gate_samples(*data.source, options.exhibits), model.tokenizer.get(), model.evaluate);
  content.data_card = data_card(*dataset, data_config(options.data, model));
}

/// Continues the beginning of the evaluated text, three times with other seeds.
std::vector<TextSample> write_samples(const OpenedModel& model, const std::string& text) {
  std::vector<TextSample> samples;
  const auto tokenizer = model.require_tokenizer();
  std::vector<int32_t> prompt = tokenizer->encode(text);
  prompt.resize(std::min<size_t>(prompt.size(), 24));
  std::vector<int32_t> context = tokenizer->prefix();
  context.insert(context.end(), prompt.begin(), prompt.end());
  for (int64_t seed = 0; seed < 3 && !prompt.empty(); ++seed) {
    const Generation answer = generate(model.language("report"), context,
                                       {.sampling = {.temperature = 0.8, .top_k = 50},
                                        .max_tokens = 120,
                                        .seed = seed,
                                        .stop_token = tokenizer->end_of_text()});
    samples.push_back({tokenizer->decode(prompt), tokenizer->decode(answer.tokens)});
  }
  return samples;
}

void add_language(const ReportOptions& options, const OpenedModel& model, RunReportContent& content) {
  const std::vector<std::string> paths = data_paths(options.data, model);
  const auto tokenizer = model.require_tokenizer();
  for (const std::string& path : paths) {
    const TokenFile file = TokenFile::open(path, *tokenizer);
    content.data_card.emplace_back("evaluated on", path);
    content.data_card.emplace_back("bytes", fmt::format("{}", file.text_bytes()));
    content.data_card.emplace_back("documents", fmt::format("{}", file.num_documents()));
    content.data_card.emplace_back("tokens", fmt::format("{}", file.size()));
  }
  const LanguageModel language = model.language("report");
  EvaluateOptions evaluate = model.evaluate;
  evaluate.batch_size = std::min<int64_t>(evaluate.batch_size, 16);
  content.language =
      evaluate_language(language, open_texts(paths, *tokenizer, language->config().max_positions), evaluate);
  content.gates = exhibit_gates({.text = language},
                                {text_sample(language, *tokenizer, read_file(paths.front()).substr(0, 2000))},
                                tokenizer.get(), evaluate);
  content.samples = write_samples(model, read_file(paths.front()).substr(0, 400));
}

void add_masked_tokens(const ReportOptions& options, const OpenedModel& model, RunReportContent& content) {
  const LanguageModel language = model.language("report");
  const MaskedTokenData data = masked_token_data(model, options.data, language->config().max_positions);
  content.masked_tokens =
      evaluate_masked_tokens(language, data.source, data.config, data.vocabulary, data.options);
  content.gates = exhibit_gates({.text = language}, gate_samples(*data.source, options.exhibits),
                                model.tokenizer.get(), model.evaluate);
  for (const std::string& path : data_paths(options.data, model))
    content.data_card.emplace_back("evaluated on", path);
}

void add_answers(const ReportOptions& options, const OpenedModel& model, RunReportContent& content) {
  const std::shared_ptr<const Dataset> dataset = open_data(options.data, model);
  const Fusion fusion = model.fusion("report");
  const AnswerData data(dataset, fusion->config(), model.inputs, model.require_tokenizer());
  content.answers = evaluate_answers(fusion, data, model.evaluate);
  content.asked = exhibit_answers(fusion, data, *content.answers, model.evaluate, options.exhibits);
  content.gates = exhibit_gates(fusion, data, model.evaluate, options.exhibits);
  content.data_card = data_card(*dataset, data_config(options.data, model));
}

/// What the gates of an encoder alone make of the data, where some is known: nothing of it is measured.
void add_encoder_gates(const ReportOptions& options, const OpenedModel& model, RunReportContent& content) {
  const Swin vision = model.loaded.vision;
  const AudioEncoder audio = model.loaded.audio;
  const bool gates = vision ? vision->config().gate.gates() : audio->config().gate.gates();
  if (!gates || (options.data.path.empty() && !model.loaded.extras.record.find("evaluation_data"))) return;
  const std::shared_ptr<const Dataset> dataset = open_data(options.data, model);
  std::shared_ptr<const SampleSource> source;
  if (vision)
    source = std::make_shared<const ImageSource>(
        dataset, std::make_shared<const ImageViews>(model.inputs.image, Phase::kEvaluate), /*seed=*/0);
  else
    source = std::make_shared<const AudioSource>(
        dataset, std::make_shared<const AudioViews>(model.inputs.audio, Phase::kEvaluate), /*seed=*/0);
  content.gates = exhibit_gates({.vision = vision, .audio = audio}, gate_samples(*source, options.exhibits),
                                /*tokenizer=*/nullptr, model.evaluate);
  content.data_card = data_card(*dataset, data_config(options.data, model));
}

}  // namespace

int run_report(int argc, const char* const* argv) {
  VerbApp app("report", "Writes a run's curves, tables and pictures as one HTML file that needs no network.");
  ReportOptions options;
  add_options(app, options);
  if (!parse_options(app, argc, argv)) return 0;
  const std::filesystem::path run = std::filesystem::path(options.model.path).lexically_normal();
  if (options.html.empty()) options.html = (run / "report.html").string();

  const OpenedModel model = open_model(options.model);
  RunReportContent content{.title = std::filesystem::absolute(run / "").parent_path().filename().string()};
  if (std::filesystem::exists(run / "log.jsonl"))
    content.history = RunHistory::read((run / "log.jsonl").string());
  if (std::filesystem::exists(run / "recipe.toml"))
    content.recipe = read_file((run / "recipe.toml").string());
  if (model.loaded.kind == ModelKind::kDualTower) add_retrieval(options, model, content);
  if (model.loaded.kind == ModelKind::kClassifier) add_classification(options, model, content);
  if (model.loaded.kind == ModelKind::kLanguage) {
    const bool causal = model.loaded.language->config().attention == AttentionKind::kCausal;
    causal ? add_language(options, model, content) : add_masked_tokens(options, model, content);
  }
  if (model.loaded.kind == ModelKind::kFusion) add_answers(options, model, content);
  if (model.loaded.kind == ModelKind::kSwin || model.loaded.kind == ModelKind::kAudio)
    add_encoder_gates(options, model, content);
  add_training_data(model.loaded.extras.record, content.data_card);
  content.model_card = model_card(model, content.history);
  std::string kind = model_kind_name(model.loaded.kind);
  std::replace(kind.begin(), kind.end(), '_', ' ');
  content.subtitle = fmt::format("A {} model of {:.1f} million parameters.", kind,
                                 static_cast<double>(num_parameters(model)) / 1e6);
  const std::string page = render_run_report(content);
  write_file_atomically(options.html, page);
  const std::string path = std::filesystem::absolute(options.html).string();
  if (options.as_json)
    print_json(Json::Object{{"html", path}, {"bytes", static_cast<int64_t>(page.size())}});
  else
    fmt::print("{}\n", path);
  return 0;
}

}  // namespace fathom::cli
