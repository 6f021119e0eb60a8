#include "cli_program.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <filesystem>

#include "base/file.h"
#include "base/json.h"
#include "byte_tokenizer.h"
#include "data/image/encode.h"
#include "models/model_folder.h"
#include "nn/init.h"

namespace fathom {
namespace {

void write_picture(const std::string& path, int shade) {
  Image image{
      .height = 40, .width = 32, .pixels = std::vector<uint8_t>(40 * 32 * 3, static_cast<uint8_t>(shade))};
  for (size_t i = 0; i < image.pixels.size(); i += 3) image.pixels[i] = static_cast<uint8_t>(i % 251);
  write_file_atomically(path, encode_png(image));
}

void write_data(const std::string& folder) {
  std::filesystem::create_directories(folder);
  std::string rows;
  for (int i = 0; i < 8; ++i) {
    const std::string name = "picture" + std::to_string(i) + ".png";
    write_picture(folder + "/" + name, 30 * i);
    rows += Json(Json::Object{{"image", name},
                              {"captions", Json::Array{"shade " + std::to_string(i),
                                                       "<b>number</b> " + std::to_string(i)}},
                              {"label", i % 2 ? "odd" : "even"},
                              {"split", "val"},
                              {"unseen", i < 4 ? "true" : "false"}})
                .dump() +
            "\n";
  }
  write_file_atomically(folder + "/captions.jsonl", rows);
}

}  // namespace

SmallWorld::SmallWorld() {
  write_data(folder_ / "data");
  write_file_atomically(folder_ / "text.txt", "One, two.\n<|endoftext|>\nThree and four.\n");
  const std::string tokenizer = byte_tokenizer().to_json();
  DualTower tower(
      DualTowerConfig{.vision = {.image_size = 32, .dim = 16, .depths = {1, 1}, .heads = {2, 2}, .window = 4},
                      .text = {.vocab_size = 257, .dim = 32, .layers = 1, .heads = 2, .max_positions = 32},
                      .embed_dim = 16});
  init_parameters(*tower, 1);
  save_model_folder(folder_ / "tower", tower, {.tokenizer_json = tokenizer});
  LanguageModel language(
      LanguageModelConfig{.vocab_size = 257, .dim = 32, .layers = 1, .heads = 2, .max_positions = 32});
  init_parameters(*language, 1);
  save_model_folder(folder_ / "language", language, {.tokenizer_json = tokenizer});
}

ProgramResult run_program(const std::vector<std::string>& arguments) {
  const TemporaryFolder folder;
  const std::string out = folder / "out", error = folder / "error";
  ::setenv("FATHOM_CACHE", folder.path().c_str(), 1);
  std::vector<std::string> words = {FATHOM_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&files, 1, out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  ::posix_spawn_file_actions_addopen(&files, 2, error.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  pid_t process = 0;
  ProgramResult result;
  if (::posix_spawn(&process, argv[0], &files, nullptr, argv.data(), environ) == 0) {
    int status = 0;
    ::waitpid(process, &status, 0);
    result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    result.out = read_file(out);
    result.error = read_file(error);
  }
  ::posix_spawn_file_actions_destroy(&files);
  return result;
}

}  // namespace fathom
