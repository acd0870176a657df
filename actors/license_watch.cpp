#include "actors/license_watch.hpp"

#include <array>
#include <cstdlib>
#include <utility>

namespace memkv::actors {

namespace {

constexpr std::int64_t second_ns = 1'000'000'000;
constexpr std::uint64_t day_s = 86'400;
constexpr std::array<std::uint32_t, 3> warning_days{1, 7, 30};

std::string described(const wire::license& granted) {
  return std::string(name(granted.plan)) + " for " + granted.organization + ", until " +
         wire::utc_text(granted.expires_at_s);
}

} // namespace

license_clock::license_clock(std::shared_ptr<const engine::clock> time)
    : time_(std::move(time)), believed_(read()) {}

license_clock::moment license_clock::read() const {
  return {static_cast<std::int64_t>(time_->wall_ns()), static_cast<std::int64_t>(time_->steady_ns())};
}

std::int64_t license_clock::wall_at(const moment& from, const moment& now) {
  return from.wall_ns + (now.steady_ns - from.steady_ns);
}

bool license_clock::near(std::int64_t a_ns, std::int64_t b_ns) {
  return std::llabs(a_ns - b_ns) <= static_cast<std::int64_t>(license_clock_step_s) * second_ns;
}

std::uint64_t license_clock::now_s(std::string& remark) {
  const auto now = read();
  const auto expected_ns = wall_at(believed_, now);
  if (near(now.wall_ns, expected_ns)) {
    believed_ = now;
    stepped_.reset();
  } else if (!stepped_ || !near(now.wall_ns, wall_at(*stepped_, now))) {
    if (!stepped_)
      remark = "the clock was set " + std::to_string(std::llabs(now.wall_ns - expected_ns) / second_ns) +
               (now.wall_ns > expected_ns ? " s forwards" : " s back") +
               ": the license is judged by it if it stays so for " +
               std::to_string(license_clock_believed_s) + " s";
    stepped_ = now;
  } else if (now.steady_ns - stepped_->steady_ns >=
             static_cast<std::int64_t>(license_clock_believed_s) * second_ns) {
    remark = "the license is judged by the clock as it was set";
    believed_ = now;
    stepped_.reset();
  }
  return static_cast<std::uint64_t>(std::max<std::int64_t>(wall_at(believed_, now), 0) / second_ns);
}

license_watch::license_watch(const wire::found_license& found, wire::license_reader read,
                             std::vector<wire::license_key> keys, std::shared_ptr<const engine::clock> time)
    : granted_(found.verdict.granted.value_or(wire::license{})), token_(found.token), source_(found.source),
      path_(found.path), read_(std::move(read)), keys_(std::move(keys)), clock_(std::move(time)) {
  std::string remark;
  publish(clock_.now_s(remark));
}

license_look license_watch::look() {
  license_look result;
  std::string remark;
  const auto now_s = clock_.now_s(remark);
  if (!remark.empty())
    result.remarks.push_back({license_look::level::warning, std::move(remark)});
  // First the file: a new licence that is there at the last moment counts.
  if (!path_.empty())
    look_at_file(now_s, result);
  warn_of_the_end(now_s, result);
  if (now_s >= granted_.expires_at_s)
    result.ended = wire::license_time_problem(granted_, now_s);
  publish(now_s);
  return result;
}

void license_watch::look_at_file(std::uint64_t now_s, license_look& result) {
  const auto file = read_(path_);
  if (file.result == wire::license_text::outcome::pending)
    return; // nothing is known about it yet, neither good nor bad
  std::string wrong;
  if (file.result != wire::license_text::outcome::read) {
    wrong = "the license file " + path_ + " cannot be read: " + file.problem;
  } else if (const auto text = wire::trimmed_license(file.text); text != token_) {
    auto verdict = wire::verify_license(text, keys_, now_s);
    if (verdict.ok()) {
      granted_ = std::move(*verdict.granted);
      token_ = text;
      warned_days_ = UINT32_MAX;
      result.remarks.push_back(
          {license_look::level::info, "the license was replaced: " + described(granted_)});
    } else {
      wrong = path_ + " holds no valid license: " + verdict.problem;
    }
  }
  // A file that is being written is another one at each look.
  auto seen = wrong + file.text;
  if (wrong.empty()) {
    seen.clear();
    if (std::exchange(told_, false))
      result.remarks.push_back({license_look::level::info, "the license file " + path_ + " is good again"});
  } else if (seen != seen_) {
    told_ = false;
  } else if (!std::exchange(told_, true)) {
    result.remarks.push_back({license_look::level::warning,
                              wrong + "; the license read before stays in force, " + described(granted_)});
  }
  seen_ = std::move(seen);
}

void license_watch::warn_of_the_end(std::uint64_t now_s, license_look& result) {
  if (now_s >= granted_.expires_at_s)
    return;
  const auto left_s = granted_.expires_at_s - now_s;
  for (const auto days : warning_days)
    if (left_s <= days * day_s) {
      if (days < warned_days_) {
        warned_days_ = days;
        result.remarks.push_back(
            {license_look::level::warning,
             "the license ends within " + std::to_string(days) + (days == 1 ? " day, at " : " days, at ") +
                 wire::utc_text(granted_.expires_at_s) + ", and the server with it: get a new one"});
      }
      return;
    }
}

void license_watch::publish(std::uint64_t now_s) {
  license_facts facts;
  facts.plan = name(granted_.plan);
  facts.organization = granted_.organization;
  facts.id = granted_.id;
  facts.source = source_;
  facts.path = path_;
  facts.expires_at_s = granted_.expires_at_s;
  facts.valid = now_s < granted_.expires_at_s;
  facts.days_left = facts.valid ? (granted_.expires_at_s - now_s) / day_s : 0;
  facts.development = granted_.development;
  state_->write(std::move(facts));
}

} // namespace memkv::actors
