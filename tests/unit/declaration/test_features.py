from __future__ import annotations

from holdtrue.declaration import Declaration, Features, parse


def test_what_is_derived_says_which_columns_it_needs() -> None:
    features = Features.model_validate(
        {
            "temporal": ["departure"],
            "derive": {
                "ahead": "days(departure - booked)",
                "late_hour": "hour(departure) > 22",
                "rush": "ahead < 2 and late_hour\n  and column('seats left') > 3",
            },
        }
    )
    assert features.inputs == {"departure", "booked", "seats left"}
    assert features.times == ("booked", "departure")
    assert features.derive["rush"] == "ahead < 2 and late_hour and column('seats left') > 3"


def test_what_only_expressions_are_made_of_is_watched_too(good: str) -> None:
    watched = (
        good.replace(
            "categorical: [origin]}", "categorical: [origin], derive: {far: seats * distance}}"
        )
        + "monitor: {columns: {seats: {drift: 2}}}\n"
    )
    declared: Declaration = parse(watched, "f.yaml")
    assert declared.monitor.columns["seats"].drift == 2
