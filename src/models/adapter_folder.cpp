// R rank, I input features, O output features.
#include "models/adapter_folder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <set>

#include "base/error.h"
#include "models/hf_config.h"
#include "models/lora.h"
#include "tensor/tensor_file.h"

namespace fathom {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = "adapter_config.json";
constexpr const char* kWeights = "adapter_model.safetensors";
constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kA = ".lora_A.weight", kB = ".lora_B.weight", kWeight = ".weight";
constexpr size_t kMostNamed = 4;

std::string in(const std::string& folder, const char* name) {
  return (fs::path(folder) / name).string();
}

/// Our layer, and the foreign layers that make it up, with their rows.
struct AdaptedLayer {
  std::string name;
  LinearImpl* layer = nullptr;
  std::vector<WeightRule::Source> parts;  ///< names without ".weight"
};

std::vector<AdaptedLayer> layers_by_map(torch::nn::Module& module, const WeightMap& map) {
  std::map<std::string, const WeightRule*> rules;
  for (const WeightRule& rule : map) rules[rule.parameter] = &rule;
  std::vector<AdaptedLayer> layers;
  for (const auto& [name, layer] : linear_layers(module)) {
    const auto rule = rules.find(name + std::string(kWeight));
    if (rule == rules.end()) continue;
    AdaptedLayer& adapted = layers.emplace_back(AdaptedLayer{name, layer});
    for (WeightRule::Source part : rule->second->sources) {
      FATHOM_CHECK(part.name.ends_with(kWeight), "[adapters] {} is no layer's weight", part.name);
      part.name.resize(part.name.size() - kWeight.size());
      if (rule->second->sources.size() == 1) part.rows = layer->options().out;
      adapted.parts.push_back(part);
    }
  }
  return layers;
}

const LoraImpl* adapter_of(const LinearImpl& layer, const std::string& name) {
  for (const auto& [own_name, adapter] : layer.adapters())
    if (own_name == name) return adapter.get();
  return nullptr;
}

Json config_of(const LoraOptions& options, const AdapterOrigin& origin) {
  Json config = Json::object();
  config["peft_type"] = "LORA";
  config["task_type"] = origin.causal_lm ? Json("CAUSAL_LM") : Json();
  config["base_model_name_or_path"] = origin.base.empty() ? Json() : Json(origin.base);
  config["r"] = options.rank;
  config["lora_alpha"] = options.alpha;
  config["lora_dropout"] = options.dropout;
  config["bias"] = "none";
  config["fan_in_fan_out"] = false;
  config["inference_mode"] = true;
  config["init_lora_weights"] = true;
  config["use_rslora"] = false;
  config["use_dora"] = false;
  config["modules_to_save"] = Json();
  config["layers_to_transform"] = Json();
  config["layers_pattern"] = Json();
  config["rank_pattern"] = Json::object();
  config["alpha_pattern"] = Json::object();
  config["target_modules"] = Json::array();
  return config;
}

/// One foreign layer's adapter.
struct Part {
  at::Tensor a_RI, b_OR;
  double scale = 0;
};

/// What an adapter_config.json says of scales; the ranks are in the tensors.
class Scales {
 public:
  explicit Scales(const std::string& folder) : path_(in(folder, kConfig)) {
    json_ = with_error_kind(ErrorKind::kCheckpoint, [&] { return read_json_file(path_); });
    const HfConfig hf(json_, path_);
    const std::string type = hf.text("peft_type", "");
    hf.require(type == "LORA", "peft_type '" + type + "'");
    hf.require(hf.text("bias", "none") == "none", "bias '" + hf.text("bias", "none") + "'");
    for (const char* key : {"use_dora", "lora_bias", "use_qalora"}) hf.require(!hf.flag(key, false), key);
    hf.require(!hf.flag("fan_in_fan_out", false), "fan_in_fan_out");
    const Json* saved = hf.present("modules_to_save");
    hf.require(saved == nullptr || (saved->is_array() && saved->size() == 0), "modules_to_save");
    alpha_ = hf.number("lora_alpha", 8);
    hf.require(alpha_ > 0, fmt::format("lora_alpha {}", alpha_));
    by_root_ = hf.flag("use_rslora", false);
    if (const Json* pattern = hf.present("alpha_pattern")) {
      hf.require(pattern->is_object(), "an alpha_pattern that is no object");
      for (const auto& [module, alpha] : pattern->as_object()) {
        hf.require(alpha.is_number() && module.find_first_of("^$*+?()[]{}|\\") == std::string::npos,
                   "the alpha_pattern '" + module + "'");
        alphas_[module] = alpha.as_double();
        hf.require(alphas_[module] > 0, "an alpha that is not positive");
      }
    }
  }

  double of(const std::string& module, int64_t rank) const {
    double alpha = alpha_;
    for (const auto& [suffix, own] : alphas_)
      if (module == suffix || module.ends_with("." + suffix)) alpha = own;
    const auto divisor = static_cast<double>(rank);
    return alpha / (by_root_ ? std::sqrt(divisor) : divisor);
  }

 private:
  std::string path_;
  Json json_;
  double alpha_ = 8;
  bool by_root_ = false;
  std::map<std::string, double> alphas_;
};

std::string shape_text(const at::Tensor& tensor) {
  return fmt::format("[{}]", fmt::join(tensor.sizes().vec(), ", "));
}

/// Both tensors of one foreign layer, taken out of `tensors`; none where the folder does not adapt it.
std::optional<Part> take_part(TensorMap& tensors, const WeightRule::Source& source, int64_t inputs,
                              const std::string& path) {
  const std::string base = std::string(kPrefix) + source.name;
  auto a = tensors.extract(base + std::string(kA)), b = tensors.extract(base + std::string(kB));
  if (a.empty() && b.empty()) return std::nullopt;
  if (a.empty() || b.empty())
    fail(ErrorKind::kCheckpoint, "{}: {} has only one of lora_A and lora_B", path, source.name);
  const at::Tensor &a_RI = a.mapped(), &b_OR = b.mapped();
  const bool fits = a_RI.dim() == 2 && b_OR.dim() == 2 && a_RI.size(0) >= 1 && a_RI.size(1) == inputs &&
                    b_OR.size(0) == source.rows && b_OR.size(1) == a_RI.size(0) &&
                    at::isFloatingType(a_RI.scalar_type()) && at::isFloatingType(b_OR.scalar_type());
  if (!fits)
    fail(ErrorKind::kCheckpoint, "{}: {}: lora_A is {} and lora_B {}, expected [rank, {}] and [{}, rank]",
         path, source.name, shape_text(a_RI), shape_text(b_OR), inputs, source.rows);
  return Part{a_RI.to(at::kDouble), b_OR.to(at::kDouble)};
}

/// The parts of a layer as one adapter: with one A if all have the same, else side by side.
Part join(const std::vector<std::optional<Part>>& parts, const std::vector<WeightRule::Source>& sources) {
  const Part* first = nullptr;
  bool same = true;
  for (const auto& part : parts) {
    same = same && part;
    if (!part) continue;
    if (first == nullptr) first = &*part;
    same = same && part->scale == first->scale && at::equal(part->a_RI, first->a_RI);
  }
  std::vector<at::Tensor> as, bs;
  int64_t rank = 0;
  for (const auto& part : parts)
    if (part) rank += part->a_RI.size(0);
  int64_t place = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (same) {
      bs.push_back(parts[i]->b_OR);
      continue;
    }
    bs.push_back(at::zeros({sources[i].rows, rank}, at::kDouble));
    if (!parts[i]) continue;
    as.push_back(parts[i]->a_RI);
    const int64_t own = parts[i]->a_RI.size(0);
    bs.back().narrow(1, place, own).copy_(parts[i]->b_OR * (parts[i]->scale / first->scale));
    place += own;
  }
  return {same ? first->a_RI : at::cat(as), at::cat(bs), first->scale};
}

}  // namespace

void write_adapters(const std::string& folder, torch::nn::Module& module, const WeightMap& map,
                    const AdapterOrigin& origin, const std::string& name) {
  TensorMap tensors;
  Json config;
  for (const AdaptedLayer& adapted : layers_by_map(module, map)) {
    const LoraImpl* adapter = adapter_of(*adapted.layer, name);
    if (adapter == nullptr) continue;
    const LoraOptions& options = adapter->options();
    if (config.is_null()) config = config_of(options, origin);
    int64_t row = 0;
    for (const WeightRule::Source& part : adapted.parts) {
      const std::string base = std::string(kPrefix) + part.name;
      tensors[base + std::string(kA)] = adapter->a().detach().to(at::kCPU).contiguous();
      tensors[base + std::string(kB)] =
          adapter->b().detach().narrow(0, row, part.rows).to(at::kCPU).contiguous();
      row += part.rows;
      config["target_modules"].push_back(part.name);
      if (Json(options.rank) != *config.find("r")) config["rank_pattern"][part.name] = options.rank;
      if (Json(options.alpha) != *config.find("lora_alpha"))
        config["alpha_pattern"][part.name] = options.alpha;
    }
  }
  FATHOM_CHECK(!tensors.empty(), "[adapters] no layer has an adapter \"{}\"", name);
  write_json_file(in(folder, kConfig), config);
  save_tensors(in(folder, kWeights), tensors, {{"format", "pt"}});
}

bool is_adapter_folder(const std::string& folder) {
  return fs::exists(fs::path(folder) / kConfig);
}

std::string adapter_base(const std::string& folder) {
  const std::string path = in(folder, kConfig);
  const Json json = with_error_kind(ErrorKind::kCheckpoint, [&] { return read_json_file(path); });
  const std::string base = HfConfig(json, path).text("base_model_name_or_path", "");
  return base.empty() ? base : fs::absolute(base).lexically_normal().string();
}

void read_adapters(torch::nn::Module& module, const WeightMap& map, const std::string& folder,
                   const std::string& name) {
  const Scales scales(folder);
  const std::string path = in(folder, kWeights);
  if (!fs::exists(path)) fail(ErrorKind::kCheckpoint, "{}: the adapter's weights are not there", path);
  TensorMap tensors = with_error_kind(ErrorKind::kCheckpoint, [&] { return load_tensors(path); });
  std::vector<std::pair<AdaptedLayer, Part>> found;
  for (const AdaptedLayer& adapted : layers_by_map(module, map)) {
    std::vector<std::optional<Part>> parts;
    for (const WeightRule::Source& source : adapted.parts) {
      parts.push_back(take_part(tensors, source, adapted.layer->options().in, path));
      if (parts.back()) parts.back()->scale = scales.of(source.name, parts.back()->a_RI.size(0));
    }
    if (std::any_of(parts.begin(), parts.end(), [](const auto& part) { return part.has_value(); }))
      found.emplace_back(adapted, join(parts, adapted.parts));
  }
  if (!tensors.empty()) {
    std::vector<std::string> left;
    for (const auto& [tensor, value] : tensors)
      if (left.size() < kMostNamed) left.push_back(tensor);
    fail(ErrorKind::kCheckpoint, "{}: {} tensors have no place in this model, such as {}", path,
         tensors.size(), fmt::join(left, ", "));
  }
  if (found.empty()) fail(ErrorKind::kCheckpoint, "{}: no adapters", path);
  const at::NoGradGuard no_grad;
  for (const auto& [adapted, part] : found) {
    const int64_t rank = part.a_RI.size(0);
    const Lora adapter = adapted.layer->add_adapter(name, {.rank = rank,
                                                           .alpha = part.scale * static_cast<double>(rank),
                                                           .stream = adapter_stream(adapted.name)});
    at::Tensor(adapter->a()).copy_(part.a_RI);
    at::Tensor(adapter->b()).copy_(part.b_OR);
  }
}

}  // namespace fathom
