"""Noun phrases for the factors that reduce or raise a capacity; the texts use them unchanged."""

from __future__ import annotations

# Effects below this many tenths of a point are minor.
MAJOR_FROM_TENTHS = 12

DRAINS_MINOR = (
    *("a mild headache", "a missed lunch", "a short night", "a stiff neck", "a long queue at the chemist"),
    *("an overdue library fine", "a noisy upstairs neighbour", "a delayed train", "a cold that lingers"),
    *("an inbox gone wild", "a burnt breakfast", "a parking ticket", "too much coffee", "a lost glove"),
    *("a leaking tap", "a tactless remark at breakfast", "a broken zip on the winter coat", "a skipped walk"),
    *("a form that came back twice", "a flat bicycle tyre", "a phone that keeps dying", "a crowded bus"),
    *("a dull toothache", "an unanswered letter", "a heap of ironing", "a birthday that everyone forgot"),
)
DRAINS_MAJOR = (
    *("three nights of broken sleep", "a funeral at the start of the week", "a quarrel with the landlord"),
    *("an unpaid heating bill", "weeks without a free day", "a diagnosis still being explained"),
    *("a friend in intensive care", "a break-up that is two weeks old", "a threatening letter from a lawyer"),
    *("a back injury that will not heal", "a court date next month", "a dog that has to be carried downstairs"),
    *("a move that went wrong", "a flare-up of an old illness", "debts that nobody knows about"),
    *("the anniversary of a loss", "a burst pipe above the good carpet", "an audit that has run for a month"),
    *(
        "months of looking after someone ill",
        "a betrayal by a friend",
        "an appeal that failed",
        "a migraine in its second day",
    ),
    *("a project that fell apart", "a winter of bills and grey skies", "a fire alarm at four in the morning"),
)
GIVES_MINOR = (
    *("a good cup of tea", "an unexpected thank-you", "a quiet half hour", "a walk round the block"),
    *("a kind word from a stranger", "a song on the radio", "a seat by the window", "a joke that landed"),
    *("clean sheets", "a postcard from the coast", "a warm scarf", "a cat asleep on the sill", "a cancelled meeting"),
    *(
        "a slice of plum cake",
        "a patch of sun",
        "a tidy desk",
        "a train that ran on time",
        "a bath with the door locked",
    ),
    *("a short call with a friend", "a found umbrella", "a good page in a book", "a hot shower"),
)
GIVES_MAJOR = (
    *("a day in bed with a book", "a helper who comes twice a week", "an appeal won at last"),
    *("a holiday that really was one", "a debt paid off", "a clean bill of health", "a windfall after lean years"),
    *("a friend who stayed for the weekend", "a lodger who does the shopping", "a mattress that deserves the name"),
    *("an apology long hoped for", "a therapist who listens", "a garden coming back to life"),
    *("a long weekend by the sea", "a deadline pushed back", "a new flat with morning light"),
    *("a choir that meets every week", "a team that pulls together", "a daily swim", "a reunion that went well"),
)
# Context sentences about the factors: all reduce (DRAINED), all raise (GIVEN), or some do each (BOTH).
DRAINED = (
    "{name} has had to live with {drains}.",
    "The cost so far: {drains}.",
    "After {drains}, not everything comes easily.",
    "Add {drains}, and the picture is complete.",
    "{name} puts it down to {drains}.",
    "Something has been taken by {drains}.",
    "I have heard about {drains} from others.",
    "{name} does not complain about {drains}, but it all counts.",
    "Then, on top of the usual, {drains}.",
    "It would be lighter without {drains}.",
)
GIVEN = (
    "{name} has been glad of {gifts}.",
    "What helps is {gifts}.",
    "Thanks to {gifts}, there is more than there was.",
    "{name} is grateful for {gifts}.",
    "Something has come back through {gifts}.",
    "On the good side of the scales: {gifts}.",
    "I have heard all about {gifts}.",
    "{name} still talks about {gifts}.",
    "It would be harder without {gifts}.",
    "{name} has had {gifts} to live on.",
)
BOTH = (
    "{name} has had to live with {drains}, and has been glad of {gifts}.",
    "What takes: {drains}. What gives: {gifts}.",
    "On one side of the scales, {drains}; on the other, {gifts}.",
    "After {drains}, {name} was all the happier about {gifts}.",
    "{^gifts} made up for part of it, but not for all of {drains}.",
    "Against {drains}, {name} can set {gifts}.",
    "{name} speaks of {drains}, and then, more gently, of {gifts}.",
    "First came {drains}, and then, just in time, {gifts}.",
    "I know about {drains}, and I know about {gifts}.",
    "Without {gifts}, {drains} would weigh more.",
)
