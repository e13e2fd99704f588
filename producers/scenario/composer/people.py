"""Who is asked: names, and what they are to the one who asks.

The one who asks tells the story, as "I"; the one asked is named wherever a pronoun would stand, so that a text still
reads well with another name in it.
"""

from __future__ import annotations

from typing import NamedTuple

from schema.scenario.columns import AGE_BANDS

WOMEN = (
    *("Adaeze", "Agnes", "Aiko", "Alma", "Amina", "Anouk", "Astrid", "Beatriz", "Brigid", "Camille", "Carmen"),
    *("Chiara", "Dagny", "Delphine", "Dorothy", "Eleni", "Elif", "Esther", "Fatima", "Freya", "Gloria", "Greta"),
    *("Hana", "Helena", "Ingrid", "Ioana", "Irina", "Jasmine", "Johanna", "Kamala", "Katarzyna", "Laleh", "Leila"),
    *("Lucía", "Magda", "Maren", "Marisol", "Mei", "Mireille", "Nadia", "Naledi", "Ngozi", "Noor", "Olga", "Paloma"),
    *("Petra", "Priya", "Rosalind", "Ruth", "Sanna", "Shirin", "Sigrid", "Simone", "Sunita", "Tamar", "Thandi"),
    *("Valentina", "Wanjiru", "Yara", "Yuki", "Zeynep", "Zofia"),
)
MEN = (
    *("Abdul", "Alasdair", "Amit", "Anders", "Anton", "Baptiste", "Bjorn", "Bogdan", "Carlos", "Cedric", "Chidi"),
    *("Cormac", "Dariusz", "Deniz", "Desmond", "Eduardo", "Elias", "Emeka", "Enzo", "Farid", "Felix", "Gabriel"),
    *("Giorgos", "Gunnar", "Hamza", "Hideo", "Ibrahim", "Igor", "Ilya", "Jakub", "Javier", "Jonas", "Kaito", "Karim"),
    *("Kofi", "Lars", "Leopold", "Luca", "Malik", "Marek", "Mateo", "Mihai", "Minh", "Nikhil", "Oskar", "Padraig"),
    *("Rafael", "Rajesh", "Ruben", "Salim", "Samuel", "Stefan", "Tariq", "Tenzin", "Tobias", "Vikram", "Wendell"),
    *("Xavier", "Yusuf", "Zoltan"),
)
EITHER = 2  # the gender of a relation that anyone can be
_ANY, _GROWN, _OLDER = AGE_BANDS, AGE_BANDS[1:], AGE_BANDS[2:]


class Relation(NamedTuple):
    """What the one asked is to the one who asks; gender 0 is a woman, 1 a man; `domain` is an index of `DOMAINS`."""

    name: str
    gender: int
    domain: int
    age_bands: tuple[str, ...]


DOMAINS = ("family", "friends", "work")

RELATIONS = (
    Relation("older sister", 0, 0, _ANY),
    Relation("older brother", 1, 0, _ANY),
    Relation("younger sister", 0, 0, AGE_BANDS[:4]),
    Relation("younger brother", 1, 0, AGE_BANDS[:4]),
    Relation("mother", 0, 0, _OLDER),
    Relation("father", 1, 0, _OLDER),
    Relation("aunt", 0, 0, _GROWN),
    Relation("uncle", 1, 0, _GROWN),
    Relation("grandmother", 0, 0, AGE_BANDS[3:]),
    Relation("grandfather", 1, 0, AGE_BANDS[3:]),
    Relation("daughter", 0, 0, AGE_BANDS[:3]),
    Relation("son", 1, 0, AGE_BANDS[:3]),
    Relation("sister-in-law", 0, 0, _ANY),
    Relation("brother-in-law", 1, 0, _ANY),
    Relation("stepmother", 0, 0, _GROWN),
    Relation("stepfather", 1, 0, _GROWN),
    Relation("cousin", EITHER, 0, _ANY),
    Relation("neighbour", EITHER, 1, _ANY),
    Relation("flatmate", EITHER, 1, AGE_BANDS[:3]),
    Relation("old friend", EITHER, 1, _ANY),
    Relation("best friend", EITHER, 1, _ANY),
    Relation("childhood friend", EITHER, 1, _ANY),
    Relation("running partner", EITHER, 1, AGE_BANDS[:4]),
    Relation("choir friend", EITHER, 1, _ANY),
    Relation("former flatmate", EITHER, 1, AGE_BANDS[1:4]),
    Relation("colleague", EITHER, 2, AGE_BANDS[:4]),
    Relation("team lead", EITHER, 2, AGE_BANDS[1:4]),
    Relation("line manager", EITHER, 2, AGE_BANDS[1:4]),
    Relation("business partner", EITHER, 2, AGE_BANDS[1:4]),
    Relation("mentor", EITHER, 2, _OLDER),
    Relation("shift partner", EITHER, 2, AGE_BANDS[:4]),
    Relation("former boss", EITHER, 2, _OLDER),
    Relation("desk neighbour", EITHER, 2, AGE_BANDS[:4]),
)
