"""What the benchmark of features over HTTP measures beside each other, on a small shop and without Feast."""

import random
from contextlib import ExitStack
from pathlib import Path

from benchmarks import feature_http, feature_http_world


def test_the_service_and_its_limits_say_the_same_of_the_same_people_and_all_of_them_are_asked(tmp_path: Path) -> None:
    world = feature_http_world.made(tmp_path, 50)
    chance = random.Random(3)
    groups = {count: [chance.sample(world.people, count) for _ in range(4)] for count in (1, 10)}
    with ExitStack() as standing:
        servers = feature_http._servers(standing, tmp_path, "sqlite", world, groups, {})
        assert set(servers) == {"ours", "drop_in", "memory", "ready"}
        feature_http._compared(servers, (1, 10))  # raises where one says something else
        for name, server in servers.items():
            found = feature_http.Asked()
            feature_http._ask(found, server, 4, 10, 0.05)
            assert len(found.times) >= 4, name
            assert found.rate > 0
    log = (world.home.root / "logs" / "personal_reads.jsonl").read_text()
    assert '"caller":"benchmark"' in log
    assert not any(who in log for who in world.people)
