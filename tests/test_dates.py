"""The date task: right answers, one meaning per phrase, and a held-out part that is unseen."""

from datetime import date, timedelta

import pytest

from numtape.training.dates import (
    FIGURE_FORMS,
    FORMS,
    HELD_OUT_DAYS,
    LAST_DAY,
    SOURCE_CHARACTERS,
    TARGET_CHARACTERS,
    date_pairs,
    forms_of,
    phrase,
)

EXAMPLES = [
    ((1997, 3, 3), "the {day}{suffix} of {month}, {year}", "the 3rd of March, 1997"),
    ((2031, 3, 4), "{weekday} {day} {month} {year}", "Tuesday 4 March 2031"),
    ((1997, 3, 3), "{short_month} {day} {year}", "Mar 3 1997"),
    ((1997, 3, 3), "{day}.{roman}.{year}", "3.III.1997"),
    ((2000, 2, 29), "{year}{number:02}{day:02}", "20000229"),
    ((1911, 11, 11), "{month} the {day}{suffix}, {year}", "November the 11th, 1911"),
    ((2022, 8, 22), "{day}{suffix} {month} {year}", "22nd August 2022"),
]


@pytest.mark.parametrize(("day", "form", "expected"), EXAMPLES)
def test_phrases(day: tuple[int, int, int], form: str, expected: str) -> None:
    assert form in FORMS
    assert phrase(date(*day), form) == expected


def test_every_ordinal_has_its_suffix() -> None:
    form = "{day}{suffix} {month} {year}"
    ordinals = [phrase(date(2000, 1, day), form).split()[0] for day in range(1, 32)]
    assert ordinals[:4] == ["1st", "2nd", "3rd", "4th"]
    assert ordinals[10:14] == ["11th", "12th", "13th", "14th"]
    assert ordinals[20:24] == ["21st", "22nd", "23rd", "24th"]
    assert ordinals[29:] == ["30th", "31st"]


@pytest.mark.parametrize("year", [1900, 1911, 2000, 2012, 2020, 2099])
def test_no_phrase_has_two_meanings(year: int) -> None:
    meanings: dict[str, date] = {}
    day = date(year, 1, 1)
    while day.year == year and day < LAST_DAY:
        for form in forms_of(day):
            assert meanings.setdefault(phrase(day, form).lower(), day) == day
        day += timedelta(days=1)


def test_figures_alone_stand_only_where_day_and_month_cannot_be_confused() -> None:
    assert set(FIGURE_FORMS).isdisjoint(forms_of(date(1997, 3, 4)))
    assert set(FIGURE_FORMS) <= set(forms_of(date(1997, 3, 3)))
    assert set(FIGURE_FORMS) <= set(forms_of(date(1997, 3, 13)))


def test_pairs_are_a_function_of_the_seed() -> None:
    assert date_pairs(500, 100, seed=3) == date_pairs(500, 100, seed=3)
    assert date_pairs(500, 100, seed=3) != date_pairs(500, 100, seed=4)


def test_the_held_out_part_does_not_depend_on_how_much_is_trained() -> None:
    assert date_pairs(10, 50, seed=1)[1] == date_pairs(200, 50, seed=1)[1]


@pytest.mark.parametrize("seed", [0, 1])
def test_training_and_held_out_dates_are_disjoint(seed: int) -> None:
    train, held_out = date_pairs(20_000, HELD_OUT_DAYS + 100, seed)
    trained, unseen = {iso for _, iso in train}, {iso for _, iso in held_out}
    assert trained.isdisjoint(unseen)
    assert len(trained) == len(train)
    assert len(unseen) == HELD_OUT_DAYS


def test_pairs_agree_and_keep_to_the_declared_characters() -> None:
    train, held_out = date_pairs(20_000, 2_000)
    for text, iso in train + held_out:
        day = date.fromisoformat(iso)
        assert text.lower() in {phrase(day, form).lower() for form in forms_of(day)}
    assert set("".join(text for text, _ in train)) == set(SOURCE_CHARACTERS)
    assert set("".join(iso for _, iso in train)) == set(TARGET_CHARACTERS)


def test_all_forms_and_all_years_occur() -> None:
    train, _ = date_pairs(20_000, 0)
    spoken = {text.lower() for text, _ in train}
    used = {
        form
        for _, iso in train
        for form in forms_of(date.fromisoformat(iso))
        if phrase(date.fromisoformat(iso), form).lower() in spoken
    }
    assert used == {*FORMS, *FIGURE_FORMS}
    assert {int(iso[:4]) for _, iso in train} == set(range(1900, 2100))


def test_a_seed_outside_the_range_is_refused() -> None:
    with pytest.raises(ValueError, match="seed is -1"):
        date_pairs(1, 1, seed=-1)
