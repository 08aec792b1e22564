"""The embedded task: dates as people write them, to ISO form; training data with no download.

"the 3rd of March, 1997" -> "1997-03-03". Every phrase has one meaning only: years have four
digits, and a month in figures stands where no other reading is possible. Training and held-out
phrases share no calendar date, so the held-out score measures dates that were never seen.
"""

from datetime import date

import numpy as np

from numtape.training.randomness import Stream, generator

FIRST_DAY, LAST_DAY = date(1900, 1, 1), date(2099, 12, 31)
DAYS = LAST_DAY.toordinal() - FIRST_DAY.toordinal() + 1
HELD_OUT_DAYS = DAYS // 10

# Not from the calendar module, whose names change with the locale.
MONTHS = ["January", "February", "March", "April", "May", "June"]
MONTHS += ["July", "August", "September", "October", "November", "December"]
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
ROMAN = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"]
SUFFIXES = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd", 31: "st"}

FORMS = (
    "{day} {month} {year}",
    "{day}{suffix} {month} {year}",
    "{day} {month}, {year}",
    "the {day}{suffix} of {month} {year}",
    "the {day}{suffix} of {month}, {year}",
    "{month} {day}, {year}",
    "{month} {day}{suffix}, {year}",
    "{month} the {day}{suffix}, {year}",
    "{weekday} {day} {month} {year}",
    "{weekday}, {month} {day}{suffix}, {year}",
    "{short_weekday}, {day} {short_month} {year}",
    "{short_month} {day} {year}",
    "{short_month}. {day}{suffix}, {year}",
    "{day} {short_month}. {year}",
    "{day}-{short_month}-{year}",
    "{day}.{roman}.{year}",
    "{year} {month} {day}",
    "{year}/{number}/{day}",
    "{year}.{number:02}.{day:02}",
    "{year}{number:02}{day:02}",
)
FIGURE_FORMS = ("{day}/{number}/{year}", "{number}/{day}/{year}", "{day:02}-{number:02}-{year}")
CASES = (str, str, str.lower, str.upper)

_LETTERS = "abcdefghijlmnoprstuvwxy"
SOURCE_CHARACTERS = "0123456789 ,-./" + _LETTERS + _LETTERS.upper()
TARGET_CHARACTERS = "0123456789-"

Pairs = list[tuple[str, str]]


def forms_of(day: date) -> tuple[str, ...]:
    """The forms that can mean only this day: figures alone need day > 12 or day = month."""
    return FORMS + FIGURE_FORMS if day.day > 12 or day.day == day.month else FORMS


def phrase(day: date, form: str) -> str:
    """The day written in one of the FORMS, in mixed case."""
    month, weekday = MONTHS[day.month - 1], WEEKDAYS[day.weekday()]
    return form.format(
        day=day.day,
        suffix=SUFFIXES.get(day.day, "th"),
        month=month,
        short_month=month[:3],
        number=day.month,
        roman=ROMAN[day.month - 1],
        weekday=weekday,
        short_weekday=weekday[:3],
        year=day.year,
    )


def date_pairs(train: int, held_out: int, seed: int = 0) -> tuple[Pairs, Pairs]:
    """`train` and `held_out` pairs (phrase, ISO date), a pure function of the seed.

    Nine tenths of the days of 1900 to 2099 are for training, one tenth is held out. A day
    comes back, mostly in another form, only once all days of its part have been used.
    """
    days = generator(seed, Stream.CALENDAR).permutation(DAYS)
    unseen, seen = days[:HELD_OUT_DAYS], days[HELD_OUT_DAYS:]
    return (
        _pairs(seen, train, generator(seed, Stream.TRAINING_DATES)),
        _pairs(unseen, held_out, generator(seed, Stream.HELD_OUT_DATES)),
    )


def _pairs(days: np.ndarray, count: int, random: np.random.Generator) -> Pairs:
    return [_pair(int(days[index % len(days)]), random) for index in range(count)]


def _pair(offset: int, random: np.random.Generator) -> tuple[str, str]:
    day = date.fromordinal(FIRST_DAY.toordinal() + offset)
    forms = forms_of(day)
    change_case = CASES[random.integers(len(CASES))]
    return change_case(phrase(day, forms[random.integers(len(forms))])), day.isoformat()
