// A file whose file system does not answer: what a look says meanwhile, and what comes of it.
#define CAF_SUITE patient_reader
#include "actors/patient_reader.hpp"

#include <caf/test/unit_test.hpp>

#include <atomic>
#include <future>
#include <mutex>
#include <stdexcept>
#include <thread>

using namespace memkv;
using namespace memkv::actors;
using outcome = wire::license_text::outcome;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds at_once{0}, generous{60'000};

/// A file that is read when the test lets it be.
struct slow_file {
  std::atomic<int> begun{0};
  std::promise<wire::license_text> content;
  std::shared_future<wire::license_text> there = content.get_future().share();

  [[nodiscard]] wire::license_reader reader() {
    return [this](const std::string&) {
      auto when = there;
      ++begun;
      return when.get();
    };
  }
};

template <class Condition>
bool comes_true(Condition condition) {
  const auto end = std::chrono::steady_clock::now() + generous;
  while (std::chrono::steady_clock::now() < end) {
    if (condition())
      return true;
    std::this_thread::yield();
  }
  return false;
}

} // namespace

CAF_TEST(a file that is there at once is read at every look) {
  std::atomic<int> times{0};
  const patient_reader look(
      [&times](const std::string& path) {
        return wire::license_text{outcome::read, path + std::to_string(++times), {}};
      },
      generous);
  CAF_CHECK_EQUAL(look("a").text, "a1");
  CAF_CHECK_EQUAL(look("a").text, "a2");
  CAF_CHECK_EQUAL(look("b").text, "b3");
}

CAF_TEST(a look does not wait and what comes late is the answer of the next one) {
  slow_file file;
  const patient_reader look(file.reader(), at_once, generous);
  for (int i = 0; i < 3; ++i)
    CAF_CHECK(look("a").result == outcome::pending);
  CAF_REQUIRE(comes_true([&] { return file.begun == 1; }));
  file.content.set_value({outcome::read, "late", {}});
  wire::license_text got;
  CAF_CHECK(comes_true([&] {
    got = look("a");
    return got.result == outcome::read;
  }));
  CAF_CHECK_EQUAL(got.text, "late");
}

CAF_TEST(a silence that lasts is a failure and one thread is enough for it) {
  slow_file file;
  const patient_reader look(file.reader(), at_once, at_once);
  for (int i = 0; i < 100; ++i) {
    const auto got = look("a");
    CAF_CHECK(got.result == outcome::failed);
    CAF_CHECK_EQUAL(got.problem, "its file system does not answer");
  }
  CAF_REQUIRE(comes_true([&] { return file.begun >= 1; }));
  CAF_CHECK_EQUAL(file.begun, 1);
  file.content.set_value({outcome::absent, {}, "gone"});
  CAF_CHECK(comes_true([&] { return look("a").problem == "gone"; }));
}

CAF_TEST(a thread that still waits keeps nobody who lets go of the reader) {
  // What it waits for must outlive the test's own file.
  static auto* const file = new slow_file;
  {
    const patient_reader look(file->reader(), at_once, at_once);
    CAF_CHECK(look("a").result == outcome::failed);
  }
  file->content.set_value({outcome::read, "nobody wants it", {}});
}

CAF_TEST(an exception while a file is read is a failure) {
  const patient_reader look(
      [](const std::string&) -> wire::license_text { throw std::runtime_error("as planned"); }, generous);
  CAF_CHECK(look("a").result == outcome::failed);
  CAF_CHECK_EQUAL(look("a").problem, "as planned");
}
