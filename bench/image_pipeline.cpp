// How many 500 × 375 JPEGs a second does one core turn into training views: decode, random crop to 224, flip,
// colour jitter, normalise?
//
//   python bench/peers/image_pipeline.py --make .cache/photos
//   bench_image_pipeline .cache/photos --peer "python bench/peers/image_pipeline.py"
//
// With a peer, rounds alternate: ours, torchvision on tensors, torchvision on PIL images. Seconds are CPU
// seconds of one thread, so that other work on the machine counts little. One JSON line for each smallest
// crop scale: 0.08 (torchvision's default) and 0.5 (ours).
#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "data/image/image.h"
#include "measure/peer_process.h"
#include "measure/result.h"

namespace fathom {
namespace {

constexpr int64_t kSize = 224;
constexpr int kRounds = 25;
constexpr int kWarmUpRounds = 3;

std::vector<std::string> read_photos(const std::string& folder) {
  std::vector<std::string> photos;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".jpg") photos.push_back(read_file(entry.path().string()));
  }
  if (photos.empty()) fail(ErrorKind::kUsage, "{}: no .jpg files", folder);
  return photos;
}

AugmentConfig config_for(double crop_scale_min) {
  AugmentConfig config;
  config.crop_scale_min = crop_scale_min;
  config.flip = 0.5;
  config.brightness = config.contrast = config.saturation = 0.4;
  config.hue = 0.1;
  return config;
}

// One round of ours over all photographs, in CPU seconds.
double our_round(const std::vector<std::string>& photos, const AugmentConfig& config, uint64_t round) {
  std::vector<uint8_t> planes(3 * kSize * kSize);
  std::vector<float> values(planes.size());
  const double start = bench::cpu_seconds();
  for (size_t i = 0; i < photos.size(); ++i) {
    Random random({round, i});
    load_augmented({std::as_bytes(std::span(photos[i])), "photo"}, config, kSize, random, planes);
    normalise(planes, {0.485F, 0.456F, 0.406F}, {0.229F, 0.224F, 0.225F}, values);
  }
  return bench::cpu_seconds() - start;
}

using Times = std::map<std::string, std::vector<double>>;

/// CPU seconds of "ours" and, with a peer, of its two ways.
Times measure(const std::vector<std::string>& photos, double crop_scale_min, bench::PeerProcess* peer) {
  const AugmentConfig config = config_for(crop_scale_min);
  uint64_t round = 0;
  std::vector<bench::Contender> contenders = {{"ours", [&] { return our_round(photos, config, round++); }}};
  for (const char* way : {"tensor", "pil"})
    if (peer != nullptr)
      contenders.push_back(
          {way, [=] { return std::stod(peer->ask(fmt::format("{} {}", way, crop_scale_min))); }});
  return bench::take_turns(contenders, {.warm_up = kWarmUpRounds, .counted = kRounds});
}

Json report(const Times& times, double crop_scale_min, size_t num_photos, bool with_peer) {
  const auto per_second = [&](const char* name) {
    return static_cast<double>(num_photos) / bench::median(times.at(name));
  };
  Json line = bench::new_line("image_pipeline", bench::processor_name());
  line["crop_scale_min"] = crop_scale_min;
  line["ours_images_per_cpu_second"] = per_second("ours");
  if (!with_peer) return line;
  line["torchvision_tensor_images_per_cpu_second"] = per_second("tensor");
  line["torchvision_pil_images_per_cpu_second"] = per_second("pil");
  const std::string faster = per_second("tensor") > per_second("pil") ? "tensor" : "pil";
  bench::add_spread(line, "ratio", bench::ratios(times.at(faster), times.at("ours")));
  line["faster"] = faster;
  line["rounds"] = kRounds;
  return line;
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) {
  using namespace fathom;
  if (argc != 2 && !(argc == 4 && std::string(argv[2]) == "--peer")) {
    fmt::print(stderr, "usage: bench_image_pipeline FOLDER [--peer COMMAND]\n");
    return 2;
  }
  try {
    const std::string folder = argv[1];
    const std::vector<std::string> photos = read_photos(folder);
    std::unique_ptr<bench::PeerProcess> peer;
    if (argc == 4) peer = std::make_unique<bench::PeerProcess>(fmt::format("{} {}", argv[3], folder));
    for (const double crop_scale_min : {0.08, 0.5}) {
      const Times times = measure(photos, crop_scale_min, peer.get());
      bench::print_line(report(times, crop_scale_min, photos.size(), peer != nullptr));
    }
    return 0;
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return exit_status(error.kind());
  }
}
