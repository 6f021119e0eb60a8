#include "cli_program.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <regex>

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

/// The child's side of a fork: system calls only. It dies with the tests, so that one that is cut off leaves
/// nothing running.
[[noreturn]] void become(char* const* argv, pid_t tests, const char* out, const char* error) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != tests) ::_exit(127);  // they ended before
  const auto open_as = [](int target, const char* path, int flags) {
    const int opened = ::open(path, flags | O_CLOEXEC, 0600);
    if (opened < 0 || ::dup2(opened, target) < 0) ::_exit(127);
  };
  open_as(STDIN_FILENO, "/dev/null", O_RDONLY);
  open_as(STDOUT_FILENO, out, O_WRONLY | O_CREAT | O_TRUNC);
  open_as(STDERR_FILENO, error, O_WRONLY | O_CREAT | O_TRUNC);
  ::execv(argv[0], argv);
  ::_exit(127);
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

RunningProgram::RunningProgram(const std::vector<std::string>& arguments, const std::string& limits) {
  ::setenv("FATHOM_CACHE", folder_.path().c_str(), 1);
  // Threads that spin while they wait make runs many times longer where tests share the processors.
  ::setenv("OMP_WAIT_POLICY", "passive", 0);
  std::vector<std::string> words = {FATHOM_PROGRAM};
  if (!limits.empty()) words.insert(words.begin(), {"/bin/sh", "-c", limits + "; exec \"$@\"", "sh"});
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const std::string out = folder_ / "out", error = folder_ / "error";
  const pid_t tests = ::getpid();
  process_ = ::fork();
  if (process_ == 0) become(argv.data(), tests, out.c_str(), error.c_str());
  running_ = process_ > 0;
  EXPECT_TRUE(running_) << argv[0];
}

RunningProgram::~RunningProgram() {
  if (!running_) return;
  ::kill(process_, SIGKILL);
  wait();
}

bool RunningProgram::is_running() const {
  siginfo_t ended{};
  return running_ && ::waitid(P_PID, static_cast<id_t>(process_), &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
         ended.si_pid == 0;
}

ProgramResult RunningProgram::wait() {
  if (!running_) return {};
  running_ = false;
  int status = 0;
  ::waitpid(process_, &status, 0);
  return {.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
          .out = read_file(folder_ / "out"),
          .error = read_file(folder_ / "error")};
}

ProgramResult run_program(const std::vector<std::string>& arguments) {
  return RunningProgram(arguments).wait();
}

ProgramResult run_program_under(const std::string& limits, const std::vector<std::string>& arguments) {
  return RunningProgram(arguments, limits).wait();
}

Json expect_json(const ProgramResult& result) {
  EXPECT_EQ(result.status, 0) << result.error;
  if (result.status != 0) return Json::object();
  EXPECT_EQ(std::count(result.out.begin(), result.out.end(), '\n'), 1) << result.out;
  const Json value = parse_json(result.out, "standard output");
  EXPECT_TRUE(value.is_object());
  return value;
}

Json run_json(std::vector<std::string> words) {
  words.emplace_back("--json");
  return expect_json(run_program(words));
}

void expect_failure(const ProgramResult& result, int status, const std::vector<std::string>& said) {
  EXPECT_EQ(result.status, status) << result.error;
  EXPECT_EQ(result.out, "");
  static const std::regex log_or_progress(R"((\[\d\d:\d\d:\d\d .*|\w+ .*\d.*)\n)");
  std::string message = result.error;
  for (std::smatch line;
       std::regex_search(message, line, log_or_progress, std::regex_constants::match_continuous);)
    message = line.suffix();
  EXPECT_EQ(message.find("fathom: "), 0u) << result.error;
  EXPECT_LE(std::count(message.begin(), message.end(), '\n'), 2) << message;
  EXPECT_EQ(message.find("frame #"), std::string::npos) << message;
  for (const std::string& text : said)
    EXPECT_NE(message.find(text), std::string::npos) << text << " is not in: " << message;
}

}  // namespace fathom
