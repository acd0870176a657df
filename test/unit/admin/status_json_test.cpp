// The documents of the administration endpoint, held to their schemas and to the report they are made of.
#define CAF_SUITE status_json
#include "admin/status_json.hpp"

#include "json_schema.hpp"
#include "reports.hpp"

#include <caf/test/unit_test.hpp>

using namespace memkv;
using namespace memkv::test;
using namespace memkv::admin;

CAF_TEST(the status of a full report fits its schema and has every figure where it belongs) {
  const auto about = gathered_of(full_report());
  const auto text = status_document(about, "DEVELOPMENT.0123456");
  CAF_CHECK_EQUAL(misfit_of(text, "status"), "");
  const auto status = json::parse(text);
  const auto& report = *about.report;
  CAF_CHECK_EQUAL(status["status"], "degraded");
  CAF_CHECK_EQUAL(status["version"], "DEVELOPMENT.0123456");
  CAF_CHECK_EQUAL(status["server_id"], "a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5");
  CAF_CHECK_EQUAL(status["time"], 1763720000.5);
  CAF_CHECK_EQUAL(status["reasons"], json({status["reasons"][0], status["reasons"][1],
                                           "the RDMA device mlx5_1 is not in use: mlx5_1 port 1 went down"}));
  CAF_CHECK_EQUAL(status["memory"]["pool_used_bytes"], report.pool.chunks_in_use * report.pool_chunk_bytes);
  CAF_CHECK_EQUAL(status["memory"]["cache"]["misses"], report.cache.misses);
  CAF_CHECK_EQUAL(status["storage"]["drives_online"], 1);
  CAF_CHECK_EQUAL(status["storage"]["drives_offline"], 2);
  CAF_CHECK_EQUAL(status["storage"]["blocks_total"], report.drives[0].facts->store.blocks);
  CAF_CHECK_EQUAL(status["requests"]["dropped_replayed"], report.requests.dropped_replayed);
  CAF_CHECK_EQUAL(status["network"]["closed"]["peer_closed"], 3);
  CAF_CHECK_EQUAL(status["network"]["requests_open"], report.requests_open);
  CAF_CHECK_EQUAL(status["latency"]["bounds_seconds"][0], 0.000008);
  CAF_CHECK_EQUAL(status["latency"]["series"][0]["counts"][1], 3);
  CAF_CHECK_EQUAL(status["actors"][1]["restarts"], report.actors[1].restarts);
  CAF_CHECK_EQUAL(status["log"]["error"], 1);
  CAF_CHECK_EQUAL(status["log"]["warn"], 2);
  const auto& rail = status["rdma"]["rails"][0];
  const auto& counted = report.rails[0].counters;
  CAF_CHECK_EQUAL(status["rdma"]["active"], true);
  CAF_CHECK_EQUAL(status["rdma"]["sessions"], report.sessions);
  CAF_CHECK_EQUAL(rail["transports"], json({"dc"}));
  CAF_CHECK_EQUAL(rail["sessions"], report.rails[0].facts->sessions);
  CAF_CHECK_EQUAL(rail["queue_pairs"], report.rails[0].facts->queue_pairs);
  CAF_CHECK_EQUAL(rail["fetched_bytes"], counted.fetched_bytes);
  CAF_CHECK_EQUAL(rail["placed"], counted.placed);
  CAF_CHECK_EQUAL(rail["not_done"]["memory_refused"], counted.refused);
  CAF_CHECK_EQUAL(rail["doorbells"], counted.doorbells);
  CAF_CHECK_EQUAL(rail["errors"], json({{"retry_exceeded", counted.reports[11]}}));
  CAF_CHECK_EQUAL(status["rdma"]["rails"][1]["reason"], report.rails[1].reason);
  CAF_CHECK(!status["rdma"]["rails"][1].contains("sessions"));
  const auto& open = status["storage"]["devices"][0];
  CAF_CHECK_EQUAL(open["model"], "Model \"X\"");
  CAF_CHECK_EQUAL(open["io"]["depth_most"], report.drives[0].facts->io.depth_most);
  CAF_CHECK_EQUAL(open["recovery"]["dropped"], report.drives[0].facts->store.dropped_at_recovery);
  CAF_CHECK(!open.contains("reset"));
  CAF_CHECK(!open.contains("reset_problem"));
  CAF_CHECK_EQUAL(status["storage"]["devices"][1]["reset_problem"], report.drives[1].reset_problem);
  const auto& offline = status["storage"]["devices"][1];
  CAF_CHECK(!offline.contains("raw_bytes"));
  CAF_CHECK_EQUAL(offline["reason"], "a write or flush failed on /dev/nvme1n1");
  CAF_CHECK_EQUAL(status["storage"]["devices"][2]["reset"]["done_bytes"], report.drives[2].reset_done_bytes);
}

CAF_TEST(a silent actor makes the status an error that names it beside what is known) {
  const auto about = gathered_of(healthy_report(), {"drive-0", "reactor-1"});
  const auto text = status_document(about, "v");
  CAF_CHECK_EQUAL(status_code(about), 503);
  CAF_CHECK_EQUAL(misfit_of(text, "status"), "");
  const auto status = json::parse(text);
  CAF_CHECK_EQUAL(status["silent"], json({"drive-0", "reactor-1"}));
  CAF_CHECK(status["error"].get<std::string>().find("drive-0, reactor-1") != std::string::npos);
  CAF_CHECK_EQUAL(status["status"], "unhealthy");
  CAF_CHECK(status.contains("storage"));
  CAF_CHECK_EQUAL(misfit_of(health_document(about), "health"), "");
  CAF_CHECK_EQUAL(health_code(about), 503);
}

CAF_TEST(without a report the gateway is named) {
  const actors::gathered nothing;
  CAF_CHECK_EQUAL(status_code(nothing), 503);
  CAF_CHECK_EQUAL(misfit_of(status_document(nothing, "v"), "status"), "");
  CAF_CHECK_EQUAL(member(status_document(nothing, "v"), "silent"), json({"admin-gateway"}));
  CAF_CHECK_EQUAL(misfit_of(health_document(nothing), "health"), "");
  CAF_CHECK_EQUAL(misfit_of(silence_document(nothing), "error"), "");
}

CAF_TEST(health is healthy or degraded or unhealthy) {
  const auto health_of = [](const actors::gathered& about) { return json::parse(health_document(about)); };
  auto report = healthy_report();
  auto about = gathered_of(report);
  CAF_CHECK_EQUAL(health_of(about), json({{"status", "healthy"},
                                          {"rdma_active", false},
                                          {"drives_online", 1},
                                          {"drives_offline", 0},
                                          {"drives_total", 1}}));
  CAF_CHECK_EQUAL(health_code(about), 200);

  report.actors[1].alive = false;
  about = gathered_of(report);
  CAF_CHECK_EQUAL(member(health_document(about), "status"), "degraded");
  CAF_CHECK_EQUAL(member(health_document(about), "reasons"), json({"the actor listener is not running"}));
  CAF_CHECK_EQUAL(health_code(about), 200);
  CAF_CHECK(!health_of(about).contains("error"));

  report.drives[0].state = actors::drive_state::offline;
  about = gathered_of(report);
  CAF_CHECK_EQUAL(member(health_document(about), "status"), "unhealthy");
  CAF_CHECK_EQUAL(member(health_document(about), "error"), "no drive is online");
  CAF_CHECK_EQUAL(health_code(about), 503);
  CAF_CHECK_EQUAL(misfit_of(health_document(about), "health"), "");

  report = healthy_report();
  report.phase = "stopping";
  about = gathered_of(report);
  CAF_CHECK_EQUAL(member(health_document(about), "error"), "the server is stopping");
  CAF_CHECK_EQUAL(health_code(about), 503);
}

CAF_TEST(failed drives are those that failed ever and those that are not online now) {
  auto report = full_report();
  auto text = failed_drives_document(report);
  auto failed = json::parse(text);
  CAF_REQUIRE_EQUAL(failed.size(), 2u);
  CAF_CHECK_EQUAL(failed[0]["device_id"], 1);
  CAF_CHECK_EQUAL(failed[0]["failure_count"], report.drives[1].failure_count);
  CAF_CHECK_EQUAL(failed[0]["state"], "offline");
  const auto& schema = openapi()["paths"]["/v1/drives/failed"]["get"]["responses"]["200"]["content"]
                                ["application/json"]["schema"];
  CAF_CHECK_EQUAL(misfit(failed, schema), "");
  report.drives[0].failure_count = 1;
  report.drives[1].state = actors::drive_state::blacklisted;
  failed = json::parse(failed_drives_document(report));
  CAF_CHECK_EQUAL(failed.size(), 3u);
  CAF_CHECK_EQUAL(failed[1]["blacklisted"], true);
  CAF_CHECK_EQUAL(json::parse(failed_drives_document(healthy_report())), json::array());
  // What nobody could read is not told as none.
  report.drives[1].failures_known = false;
  failed = json::parse(failed_drives_document(report));
  CAF_CHECK_EQUAL(misfit(failed, schema), "");
  for (const auto* name : {"failure_count", "first_failed_at", "last_failed_at"})
    CAF_CHECK(failed[1].at(name).is_null());
}

CAF_TEST(text that is no UTF-8 and numbers that are none do not break a document) {
  auto report = full_report();
  report.drives[0].media = "/dev/\xFF\xC0\x80\x01\"\\";
  report.drives[1].reason = std::string("a\0b\xED\xA0\x80", 6);
  report.license->organization = "\xF8";
  report.requests.closed = {{"\xFF", 1}};
  const auto about = gathered_of(report, {"dr\xFFive"});
  CAF_CHECK_EQUAL(misfit_of(status_document(about, "\x80"), "status"), "");
  CAF_CHECK_EQUAL(misfit_of(health_document(about), "health"), "");
  CAF_CHECK(!json::parse(failed_drives_document(report), nullptr, false).is_discarded());
  report.high_watermark = std::numeric_limits<double>::quiet_NaN();
  CAF_CHECK(json::parse(status_document(gathered_of(report), "v"))["eviction"]["high_watermark"].is_null());
}

CAF_TEST(a server without a licence says null) {
  auto report = healthy_report();
  report.license.reset();
  const auto text = status_document(gathered_of(report), "v");
  CAF_CHECK(member(text, "license").is_null());
  CAF_CHECK_EQUAL(misfit_of(text, "status"), "");
}

CAF_TEST(the schemas find what does not fit) {
  auto status = json::parse(status_document(gathered_of(full_report()), "v"));
  const auto& schema = openapi()["components"]["schemas"]["status"];
  const auto spoilt = [&](const std::string& pointer, const json& value) {
    auto copy = status;
    copy[json::json_pointer{pointer}] = value;
    return !misfit(copy, schema).empty();
  };
  CAF_CHECK(misfit(status, schema).empty());
  CAF_CHECK(spoilt("/unknown", 1));
  CAF_CHECK(spoilt("/status", "fine"));
  CAF_CHECK(spoilt("/storage/devices/0/io/reads", "7"));
  CAF_CHECK(spoilt("/storage/devices/0/io/reads", -7));
  CAF_CHECK(spoilt("/server_id", "A5"));
  CAF_CHECK(spoilt("/network/closed/idle", 0.5));
  CAF_CHECK(spoilt("/latency/series/0/counts", json::array({1, 2})));
  status.erase("version");
  CAF_CHECK(!misfit(status, schema).empty());
}
