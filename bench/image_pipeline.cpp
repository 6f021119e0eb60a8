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

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/json.h"
#include "base/version.h"
#include "data/image/image.h"
#include "peer_process.h"

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

double cpu_seconds() {
  timespec now;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// One round of ours over all photographs, in CPU seconds.
double our_round(const std::vector<std::string>& photos, const AugmentConfig& config, uint64_t round) {
  std::vector<uint8_t> planes(3 * kSize * kSize);
  std::vector<float> values(planes.size());
  const double start = cpu_seconds();
  for (size_t i = 0; i < photos.size(); ++i) {
    Random random({round, i});
    load_augmented({std::as_bytes(std::span(photos[i])), "photo"}, config, kSize, random, planes);
    normalise(planes, {0.485F, 0.456F, 0.406F}, {0.229F, 0.224F, 0.225F}, values);
  }
  return cpu_seconds() - start;
}

double quantile(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

struct Times {
  std::vector<double> ours;
  std::vector<double> tensor;
  std::vector<double> pil;
};

Times measure(const std::vector<std::string>& photos, double crop_scale_min, bench::PeerProcess* peer) {
  const AugmentConfig config = config_for(crop_scale_min);
  Times times;
  for (int round = -kWarmUpRounds; round < kRounds; ++round) {
    const double ours = our_round(photos, config, static_cast<uint64_t>(round + kWarmUpRounds));
    const auto ask = [&](const char* backend) {
      return peer ? std::stod(peer->ask(fmt::format("{} {}", backend, crop_scale_min))) : 0.0;
    };
    const double tensor = ask("tensor");
    const double pil = ask("pil");
    if (round < 0) continue;
    times.ours.push_back(ours);
    times.tensor.push_back(tensor);
    times.pil.push_back(pil);
  }
  return times;
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown";
}

Json report(const Times& times, double crop_scale_min, size_t num_photos, bool with_peer) {
  const auto per_second = [&](double seconds) { return static_cast<double>(num_photos) / seconds; };
  Json line = Json::object();
  line["bench"] = "image_pipeline";
  line["hardware"] = processor_name();
  line["commit"] = commit();
  line["crop_scale_min"] = crop_scale_min;
  line["ours_images_per_cpu_second"] = per_second(quantile(times.ours, 0.5));
  if (!with_peer) return line;
  const double tensor = quantile(times.tensor, 0.5);
  const double pil = quantile(times.pil, 0.5);
  const std::vector<double>& faster = tensor < pil ? times.tensor : times.pil;
  std::vector<double> ratios;
  for (size_t i = 0; i < faster.size(); ++i) ratios.push_back(faster[i] / times.ours[i]);
  line["torchvision_tensor_images_per_cpu_second"] = per_second(tensor);
  line["torchvision_pil_images_per_cpu_second"] = per_second(pil);
  line["ratio_to_faster"] = quantile(ratios, 0.5);
  line["ratio_10_percent"] = quantile(ratios, 0.1);
  line["ratio_90_percent"] = quantile(ratios, 0.9);
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
      fmt::print("{}\n", report(times, crop_scale_min, photos.size(), peer != nullptr).dump());
    }
    return 0;
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return exit_status(error.kind());
  }
}
