#include "train/parameter_depth.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace fathom {
namespace {

constexpr std::array<std::string_view, 8> kInputs = {"embedding", "patch_embed", "stem",       "positions",
                                                     "position",  "conv",        "mask_token", "sub_band"};

std::vector<std::string_view> split(std::string_view name) {
  std::vector<std::string_view> parts;
  for (size_t start = 0; start <= name.size();) {
    const size_t dot = std::min(name.find('.', start), name.size());
    parts.push_back(name.substr(start, dot - start));
    start = dot + 1;
  }
  return parts;
}

std::optional<int64_t> number(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Where a name says that it stands: stage and block, each −1 if it does not say.
struct Place {
  std::string tower;  ///< what stands before "blocks" or "stages", with its dot
  int64_t stage = -1;
  int64_t block = -1;
};

std::optional<Place> place_of(const std::string& name) {
  const auto parts = split(name);
  Place place;
  bool found = false;
  size_t length = 0;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    const auto value = number(parts[i + 1]);
    const bool is_stage = parts[i] == "stages", is_block = parts[i] == "blocks";
    if (value && (is_stage || is_block)) {
      if (!found) place.tower = name.substr(0, length);
      found = true;
      (is_stage ? place.stage : place.block) = *value;
      if (is_block) return place;
    }
    length += parts[i].size() + 1;
  }
  return found ? std::optional(place) : std::nullopt;
}

/// The blocks of each stage of a tower; a tower without stages has one, −1.
using Stages = std::map<int64_t, int64_t>;

int64_t layer_of(const Stages& stages, const Place& place) {
  int64_t before = 0;
  for (const auto& [stage, blocks] : stages) {
    if (stage == place.stage) return before + (place.block >= 0 ? place.block + 1 : blocks);
    before += blocks;
  }
  return before;
}

bool feeds_first_layer(std::string_view name) {
  const std::string_view part = name.substr(0, name.find('.'));
  return std::any_of(kInputs.begin(), kInputs.end(),
                     [&](std::string_view input) { return part.starts_with(input); });
}

}  // namespace

std::vector<ParameterDepth> parameter_depths(const NamedParameters& parameters) {
  std::map<std::string, Stages> towers;
  for (const auto& [name, parameter] : parameters)
    if (const auto place = place_of(name)) {
      int64_t& blocks = towers[place->tower][place->stage];
      blocks = std::max(blocks, place->block + 1);
    }
  std::vector<ParameterDepth> depths;
  for (const auto& [name, parameter] : parameters) {
    ParameterDepth& depth = depths.emplace_back();
    const auto place = place_of(name);
    // The longest prefix is the tower that a parameter outside all blocks belongs to.
    const std::pair<const std::string, Stages>* own = nullptr;
    for (const auto& tower : towers)
      if (place ? tower.first == place->tower : name.starts_with(tower.first))
        if (own == nullptr || tower.first.size() > own->first.size()) own = &tower;
    if (own == nullptr) continue;
    for (const auto& [stage, blocks] : own->second) depth.layers += blocks;
    if (place)
      depth.depth = layer_of(own->second, *place);
    else
      depth.depth =
          feeds_first_layer(std::string_view(name).substr(own->first.size())) ? 0 : depth.layers + 1;
  }
  return depths;
}

}  // namespace fathom
