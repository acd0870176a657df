#include "actors/patient_reader.hpp"

#include <condition_variable>
#include <exception>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>

namespace memkv::actors {

namespace {

using steady = std::chrono::steady_clock;
using outcome = wire::license_text::outcome;

} // namespace

struct patient_reader::state {
  const wire::license_reader read;
  const std::chrono::milliseconds patience, silence;

  std::mutex lock;
  std::condition_variable done;
  bool reading = false;
  std::string path; // of what is read, or was last
  steady::time_point begun;
  std::optional<wire::license_text> came; // and nobody has taken it yet
};

patient_reader::patient_reader(wire::license_reader read, std::chrono::milliseconds patience,
                               std::chrono::milliseconds silence)
    : state_(new state{std::move(read), patience, silence, {}, {}, false, {}, {}, {}}) {}

wire::license_text patient_reader::operator()(const std::string& path) const {
  std::unique_lock guard(state_->lock);
  if (!state_->reading && !(state_->came && state_->path == path)) {
    state_->came.reset();
    state_->path = path;
    state_->begun = steady::now();
    try {
      std::thread([own = state_, path] {
        wire::license_text text{outcome::failed, {}, "reading it failed"};
        try {
          text = own->read(path);
        } catch (const std::exception& problem) {
          text.problem = problem.what();
        }
        const std::lock_guard held(own->lock);
        own->came = std::move(text);
        own->reading = false;
        own->done.notify_all();
      }).detach();
    } catch (const std::system_error& problem) {
      return {outcome::failed, {}, std::string("no thread can be made to read it: ") + problem.what()};
    }
    state_->reading = true;
    state_->done.wait_for(guard, state_->patience, [this] { return state_->came.has_value(); });
  }
  if (state_->came && state_->path == path) {
    auto text = std::move(*state_->came);
    state_->came.reset();
    return text;
  }
  if (steady::now() - state_->begun < state_->silence)
    return {outcome::pending, {}, "it is being read"};
  return {outcome::failed, {}, "its file system does not answer"};
}

} // namespace memkv::actors
