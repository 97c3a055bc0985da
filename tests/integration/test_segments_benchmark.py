"""The benchmark of segments on a small world: every measure comes, and the export is what the preview promised."""

from benchmarks import segments


def test_every_measure_comes_and_an_export_is_what_its_preview_promised() -> None:
    measures = {measure.name: measure for measure in segments.measure("tiny")}
    assert list(measures) == [
        *(f"preview_{name}_p50" for name in segments.SEGMENTS),
        "preview_lapsed_first_of_a_process",
        "export",
    ]
    told = measures["export"].conditions  # it raises where the two differ
    assert told["matched"] == 1_990
    assert told["exported"] > 1_000
    assert {"expired", "held_out", "in_test_group", "never_asked", "no_contact_point"} <= set(told["refused"])
    assert all(measures[f"preview_{name}_p50"].conditions["matched"] for name in segments.SEGMENTS if name != "lookers")
