#include "admin/resolver.hpp"

#include <netdb.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

namespace memkv::admin {

namespace {

constexpr std::size_t addresses_max = 8;

resolved_name look_up(std::size_t number, const std::string& host, std::uint16_t port, int flags) {
  resolved_name made{number, {}, {}};
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int code = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (code != 0) {
    made.problem = "the name " + host + " cannot be resolved: " +
                   (code == EAI_SYSTEM ? std::strerror(errno) : ::gai_strerror(code));
    return made;
  }
  for (const addrinfo* each = found; each != nullptr && made.addresses.size() < addresses_max;
       each = each->ai_next) {
    socket_address address;
    if (each->ai_addrlen > sizeof address.storage)
      continue;
    std::memcpy(&address.storage, each->ai_addr, each->ai_addrlen);
    address.size = each->ai_addrlen;
    made.addresses.push_back(address);
  }
  ::freeaddrinfo(found);
  if (made.addresses.empty())
    made.problem = "the name " + host + " has no address";
  return made;
}

} // namespace

struct resolver::shared {
  struct question {
    std::size_t number;
    std::string host;
    std::uint16_t port;
  };

  shared() : wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  ~shared() {
    if (wake >= 0)
      ::close(wake);
  }
  shared(const shared&) = delete;
  shared& operator=(const shared&) = delete;

  void answer(resolved_name name) {
    const std::lock_guard guard(lock);
    answers.push_back(std::move(name));
    const std::uint64_t one = 1;
    // Nobody reads only when nobody waits any more.
    [[maybe_unused]] const auto written = ::write(wake, &one, sizeof one);
  }

  const int wake;
  std::mutex lock;
  std::deque<question> questions;
  std::vector<resolved_name> answers;
  std::size_t threads = 0;
  bool given_up = false;
};

resolver::resolver() : shared_(std::make_shared<shared>()) {}

resolver::~resolver() {
  const std::lock_guard guard(shared_->lock);
  shared_->given_up = true;
  shared_->questions.clear();
}

int resolver::ready_descriptor() const noexcept {
  return shared_->wake;
}

void resolver::work(const std::shared_ptr<shared>& common) {
  while (true) {
    shared::question next;
    {
      const std::lock_guard guard(common->lock);
      if (common->given_up || common->questions.empty()) {
        --common->threads;
        return;
      }
      next = std::move(common->questions.front());
      common->questions.pop_front();
    }
    common->answer(look_up(next.number, next.host, next.port, AI_ADDRCONFIG));
  }
}

void resolver::ask(std::size_t number, const std::string& host, std::uint16_t port) {
  if (shared_->wake < 0) {
    const std::lock_guard guard(shared_->lock);
    shared_->answers.push_back({number, {}, "names cannot be resolved: no descriptor is left"});
    return;
  }
  bool starts = false;
  {
    const std::lock_guard guard(shared_->lock);
    shared_->questions.push_back({number, host, port});
    starts = shared_->threads < resolver_threads_max;
    shared_->threads += starts ? 1 : 0;
  }
  if (!starts)
    return;
  try {
    std::thread([common = shared_] { work(common); }).detach();
  } catch (const std::system_error&) {
    bool nobody = false;
    {
      const std::lock_guard guard(shared_->lock);
      nobody = --shared_->threads == 0 && !shared_->questions.empty();
      if (nobody)
        shared_->questions.pop_back();
    }
    if (nobody)
      shared_->answer({number, {}, "names cannot be resolved: the system gives no thread"});
  }
}

std::vector<resolved_name> resolver::take() {
  std::uint64_t count = 0;
  if (shared_->wake >= 0) {
    [[maybe_unused]] const auto read = ::read(shared_->wake, &count, sizeof count);
  }
  const std::lock_guard guard(shared_->lock);
  return std::exchange(shared_->answers, {});
}

resolved_name address_of(std::size_t number, const std::string& host, std::uint16_t port) {
  return look_up(number, host, port, AI_NUMERICHOST);
}

} // namespace memkv::admin
