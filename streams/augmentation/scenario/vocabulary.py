"""What a scenario's name, relation and setting can be swapped for: others of the same kind.

A name is swapped for one of the same gender, as far as the texts give one away; a relation for one that the same person
could have, of the same circle, gender and age; a setting for one of the same kind of place. All settings follow "in".
"""

from __future__ import annotations

from typing import NamedTuple

from schema.scenario.columns import AGE_BANDS

WOMAN, MAN, EITHER = range(3)

WOMEN = (
    *("Abena", "Anneke", "Bettina", "Carla", "Dalia", "Edith", "Farah", "Gitta", "Hedda", "Imani", "Jovana", "Kirsten"),
    *("Lidia", "Mariam", "Nora", "Oksana", "Pilar", "Renata", "Selma", "Teresa", "Ursula", "Vera", "Winnie", "Zahra"),
)
MEN = (
    *("Adnan", "Bram", "Claudio", "Dmitri", "Erik", "Florian", "Gavin", "Henrik", "Ivan", "Jerome", "Kwame", "Leon"),
    *("Milan", "Nils", "Omar", "Pavel", "Quentin", "Rashid", "Sergio", "Tomek", "Umar", "Viktor", "Walter", "Zubair"),
)
ANYONE = ("Alex", "Ariel", "Jamie", "Jordan", "Kim", "Noa", "Quinn", "Robin", "Rowan", "Sasha", "Toni", "Yael")

_ANY, _GROWN, _OLDER, _YOUNGER = AGE_BANDS, AGE_BANDS[1:], AGE_BANDS[2:], AGE_BANDS[:3]


class Relation(NamedTuple):
    """What a character is to the one who asks; swaps stay within a circle."""

    name: str
    gender: int
    circle: str
    age_bands: tuple[str, ...] = _ANY


RELATIONS = (
    Relation("sister", WOMAN, "siblings"),
    Relation("older sister", WOMAN, "siblings"),
    Relation("younger sister", WOMAN, "siblings", AGE_BANDS[:4]),
    Relation("half-sister", WOMAN, "siblings"),
    Relation("sister-in-law", WOMAN, "siblings"),
    Relation("brother", MAN, "siblings"),
    Relation("older brother", MAN, "siblings"),
    Relation("younger brother", MAN, "siblings", AGE_BANDS[:4]),
    Relation("half-brother", MAN, "siblings"),
    Relation("brother-in-law", MAN, "siblings"),
    Relation("cousin", EITHER, "siblings"),
    Relation("mother", WOMAN, "elders", _OLDER),
    Relation("stepmother", WOMAN, "elders", _GROWN),
    Relation("godmother", WOMAN, "elders", _OLDER),
    Relation("aunt", WOMAN, "elders", _GROWN),
    Relation("grandmother", WOMAN, "elders", AGE_BANDS[3:]),
    Relation("father", MAN, "elders", _OLDER),
    Relation("stepfather", MAN, "elders", _GROWN),
    Relation("godfather", MAN, "elders", _OLDER),
    Relation("uncle", MAN, "elders", _GROWN),
    Relation("grandfather", MAN, "elders", AGE_BANDS[3:]),
    Relation("daughter", WOMAN, "juniors", _YOUNGER),
    Relation("stepdaughter", WOMAN, "juniors", _YOUNGER),
    Relation("niece", WOMAN, "juniors", _YOUNGER),
    Relation("son", MAN, "juniors", _YOUNGER),
    Relation("stepson", MAN, "juniors", _YOUNGER),
    Relation("nephew", MAN, "juniors", _YOUNGER),
    Relation("friend", EITHER, "friends"),
    Relation("old friend", EITHER, "friends"),
    Relation("best friend", EITHER, "friends"),
    Relation("close friend", EITHER, "friends"),
    Relation("childhood friend", EITHER, "friends"),
    Relation("choir friend", EITHER, "friends"),
    Relation("running partner", EITHER, "friends", AGE_BANDS[:4]),
    Relation("neighbour", EITHER, "neighbours"),
    Relation("upstairs neighbour", EITHER, "neighbours"),
    Relation("next-door neighbour", EITHER, "neighbours"),
    Relation("flatmate", EITHER, "neighbours", _YOUNGER),
    Relation("roommate", EITHER, "neighbours", _YOUNGER),
    Relation("housemate", EITHER, "neighbours"),
    Relation("former flatmate", EITHER, "neighbours", AGE_BANDS[1:4]),
    Relation("colleague", EITHER, "peers", AGE_BANDS[:4]),
    Relation("coworker", EITHER, "peers", AGE_BANDS[:4]),
    Relation("shift partner", EITHER, "peers", AGE_BANDS[:4]),
    Relation("desk neighbour", EITHER, "peers", AGE_BANDS[:4]),
    Relation("business partner", EITHER, "peers", AGE_BANDS[1:4]),
    Relation("manager", EITHER, "leads", AGE_BANDS[1:4]),
    Relation("line manager", EITHER, "leads", AGE_BANDS[1:4]),
    Relation("team lead", EITHER, "leads", AGE_BANDS[1:4]),
    Relation("supervisor", EITHER, "leads", AGE_BANDS[1:4]),
    Relation("former boss", EITHER, "leads", _OLDER),
    Relation("mentor", EITHER, "leads", _OLDER),
)

# Kinds of places.
SETTINGS = (
    (
        *("the kitchen", "the living room", "the hallway", "the front hall", "the attic", "the cellar", "the garage"),
        *("the laundry room", "the spare bedroom", "the small dining room", "the old nursery", "the conservatory"),
        *("the back garden", "the greenhouse", "the study", "the guest room"),
    ),
    (
        *("the hospital corridor", "the waiting room of the clinic", "the waiting room", "the hospital canteen"),
        *("the pharmacy queue", "the day ward", "the physiotherapy room"),
    ),
    (
        *("the park", "the community garden", "the playground", "the courtyard", "the allotment", "the market square"),
        *("the flea market", "the pub garden", "the car park", "the supermarket car park"),
    ),
    (
        *("the corner café", "the library", "the launderette", "the cinema foyer", "the swimming pool lobby"),
        *("the foyer of the baths",),
        *("the church hall", "the rehearsal room", "the market hall", "the shared kitchen", "the bakery queue"),
        *("the bike shed", "the stairwell", "the museum shop", "the sports hall"),
    ),
    ("the tram", "the train carriage", "the bus shelter", "the lift", "the parked car", "the night bus"),
    (
        *("the staff room", "the loading bay", "the open-plan office", "the meeting room", "the print shop"),
        *("the canteen", "the archive", "the server room", "the workshop", "the hotel lobby", "the ward office"),
        *("the back office", "the site cabin", "the stockroom", "the break room", "the lecture hall", "the post room"),
        *("the empty showroom", "the car park behind the office", "the lift to the fourth floor", "the reception"),
    ),
)

# Who else a text may call by what they are, beside by name; in Rust's regular expressions.
KIN = (
    r"(?i)\b(?:mum|mom|mummy|mama|mother|dad|daddy|papa|father|sis|sister|bro|brother|aunt|auntie|uncle|nan|gran|granny"
    r"|grandma|grandmother|grandpa|grandfather|daughter|son|niece|nephew|cousin|boss|manager|neighbour|neighbor|friend"
    r"|flatmate|roommate|housemate|colleague|coworker|partner|lead|mentor|supervisor)s?\b"
)
# What gives away a woman, or a man; in Rust's regular expressions.
HERS = r"(?i)\b(?:she|her|hers|herself|woman|lady|girl|mrs|ms|mum|mom)\b"
HIS = r"(?i)\b(?:he|him|his|himself|man|guy|boy|mr|sir|dad)\b"
