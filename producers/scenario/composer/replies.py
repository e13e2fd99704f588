"""Phrases of the character's answer, by complexity type and authenticity target.

A failed answer is hollow, promises too much or turns away. A struggling answer is strained and half true. An authentic
answer is honest about its limits. An excellent answer is generous and true. The outer order is that of the complexity
types, the inner order that of the targets: failed, struggling, authentic, excellent.
"""

from __future__ import annotations

MOVES = (
    (  # baseline
        (
            "There is nothing to discuss, it will all be fine.",
            "Why would that be a problem?",
            "Let us not make a big thing of it, you can have whatever you want.",
            "I never check first; checking is for people who doubt.",
            "You know me, I just say yes and see.",
        ),
        (
            "I am trying to work out whether I can, and I keep losing count.",
            "I want to give you a clear answer and do not have one.",
            "Part of it might work, though I could not tell you which part.",
            "I should be able to, on paper.",
            "Ask me twice and you will hear two things.",
        ),
        (
            "I have thought about it, and I would rather be exact than nice.",
            "Let me tell you what is there and what is not.",
            "I looked at my week before I opened my mouth.",
            "You asked plainly, so you get a plain answer.",
            "I would like you to be able to rely on what I say.",
        ),
        (
            "I have checked, and it fits well within what I have.",
            "I do not have to think long, because I have thought already.",
            "You asked plainly, and it is plainly a yes.",
            "I know what it takes, and I have it.",
            "It costs me less than you fear, and I mean that.",
        ),
    ),
    (  # people_pleasing
        (
            "Of course, of course, anything, you know that I love to help!",
            "No trouble at all, please do not even think of thanking me.",
            "I will cancel whatever there is, just do not be cross with me.",
            "Yes, and what else can I do, is there nothing else?",
            "How could I say no to you, I would never do that.",
        ),
        (
            "Yes, I mean, yes, if it is not too, no, it is fine.",
            "I already said yes to the others, but I can hardly say no to you.",
            "I do not want you to think badly of me, so let us call it a yes for now.",
            "I am smiling, and I notice that I am.",
            "Sorry, I know that you hoped to hear it said more warmly.",
        ),
        (
            "My first wish is to say yes to everything, and that is why I waited a moment.",
            "I would love to be the one who always can, but I am not.",
            "I hate to disappoint you, and I would hate more to pretend.",
            "You will not like me less for half a yes, I hope.",
            "This time I am answering you and not my fear of your frown.",
        ),
        (
            "I say yes because I want to, not because I am afraid of a no.",
            "I asked myself whether I would do it if nobody thanked me, and I would.",
            "This is no favour to be liked for; I would simply like to do it.",
            "If it were too much, I would tell you by now, and it is not.",
            "I have turned down two others this week, so believe this yes.",
        ),
    ),
    (  # misjudgment_over
        (
            "That is all? I could do three of those before lunch.",
            "I have never been stronger, so pile it on.",
            "I do not get tired, that is for other people.",
            "Give me that and the next thing too, I have room for everything.",
            "I will do it with my eyes closed, and finish early.",
        ),
        (
            "I said that I could do anything, and now I am not so sure about the day of it.",
            "I might have counted the same hour twice.",
            "It looked like less when I offered.",
            "I still think I can, although the last two times I could not.",
            "Let me begin with all of it and see how far I get.",
        ),
        (
            "I was about to promise double, and then I did the sum.",
            "I tend to think that I have more than I do, so I am taking something off.",
            "My first guess was too high, and I would rather you heard the second.",
            "I told you that there was plenty, and I was wrong about that.",
            "I know by now that I count my strength before it is there.",
        ),
        (
            "For once I have counted twice, and there is still enough.",
            "I nearly offered you three times as much; what you ask for is just right.",
            "I left out everything that I only hope to have, and it is still a yes.",
            "I do overrate myself, so I asked someone who does not, and it fits.",
            "Not the moon this time, only what you asked for, and that in full.",
        ),
    ),
    (  # misjudgment_under
        (
            "I am no use to anyone, so it hardly matters what I promise.",
            "I could never do that properly; put my name down, it will fail anyway.",
            "You would be better off with somebody who is worth something.",
            "I cannot do a thing, but fine, I will do everything.",
            "There is no point in asking me, and no point in my saying no.",
        ),
        (
            "I do not think that I can, and I do not trust that thought either.",
            "I always say no too soon, so perhaps, but I would not bet on me.",
            "I might manage a corner of it and ruin the rest.",
            "You say that I can; I cannot feel it.",
            "I keep hearing that I am stronger than I think, and it does not help.",
        ),
        (
            "My first thought was that I cannot, and it was only half right.",
            "I make myself smaller than I am, so I looked at last week instead of at my mood.",
            "It is more than I believed this morning and less than you hope for.",
            "I wrote down what I did manage this month, and so I can give you a real answer.",
            "I know that I round down, so this is the number without the rounding.",
        ),
        (
            "I always think that it is too much, and this time I can see that it is not.",
            "You reminded me that I have done it before, and I have.",
            "I was ready to say no out of habit, but I have more than I thought.",
            "I checked my gloomy sum, and there was a mistake in it.",
            "I am better at this than I admit, and it would be a pleasure.",
        ),
    ),
    (  # defensive_lashing
        (
            "Oh, so now it is my fault that nobody looks after you?",
            "Why is it always me, and who asks how I am?",
            "Fine, heap it on, that is what I am here for, is it not?",
            "Do not look at me like that, I do more than all of you together.",
            "You only ever turn up when you want something.",
        ),
        (
            "Do not rush me, I have not said no, have I?",
            "I heard you the first time; I am thinking, and it is loud in here.",
            "I know how it sounds, and I cannot get the edge out of my voice.",
            "Everyone wants a piece, and now you. All right, let me look.",
            "I snapped, I know; give me a minute and ask again.",
        ),
        (
            "I can feel myself getting sharp, and it is not about you.",
            "My first answer would have been unfair, so here is the second.",
            "I was about to bite, because I am worried, not because you asked.",
            "Let me put the anger to one side; it belongs to somebody else.",
            "I heard blame where there was a question, and I am sorry.",
        ),
        (
            "I had a retort ready, and then I noticed that you were only asking.",
            "There was a time when I would have slammed the door; come in instead.",
            "I am not under attack, and I am glad to say so out loud.",
            "I heard the question this time, and not the ghost of a reproach.",
            "No sharp word today; you came to the right place.",
        ),
    ),
    (  # emergency_override
        (
            "Everything at once, I will do everything, stand back, I have it under control!",
            "Do not panic, nothing is as bad as that, it will sort itself out.",
            "I am already gone, I will think later!",
            "I will be everywhere, tell them all that I am coming.",
            "Surely someone has been called, someone always has.",
        ),
        (
            "My keys, where are my keys, I am coming, I think.",
            "I can start, but I do not know how long I shall hold out.",
            "My head is spinning; tell me the first step, only the first.",
            "I will run now and fall over afterwards, it cannot be helped.",
            "Yes, now, somehow, do not ask me about the rest of it.",
        ),
        (
            "I am coming, and while we go, let us call a second person.",
            "This goes before my own plans, and it also has an end.",
            "For an emergency I find something extra, and I will have to pay it back.",
            "First what cannot wait; the rest we hand on.",
            "I can carry the first hours, so find somebody for the ones after.",
        ),
        (
            "I am with you; breathe, and tell me on the way.",
            "You did right to come straight to me; I have what it takes.",
            "I am calm enough for two, so lean on that.",
            "The rest of my day can wait, and it will not mind.",
            "We go now, and I know what to do first.",
        ),
    ),
    (  # cultural_indirect
        (
            "In our house we say that a guest brings the sun; so it is as good as done, naturally.",
            "It shall be as you wish, as it always is, and let us say no more about it.",
            "If heaven allows it, and why should heaven not allow it.",
            "You honour me by asking, and who am I to speak of difficulties?",
            "We shall see, we shall see; meanwhile take another biscuit.",
        ),
        (
            "My grandmother used to say that a full cup is carried slowly. I say nothing more.",
            "It would surely be possible, if the days were a little longer.",
            "How could one refuse? And yet the roads are bad at this time of year.",
            "I shall certainly think of it as often as I can.",
            "You know that for you one would move the mountain, though it is a heavy mountain.",
        ),
        (
            "With us one does not say it so directly, so let me say it gently: a part of it.",
            "A small pot cooks well what fits in it, as my aunt would have said.",
            "Please understand my pause as it is meant: up to there, and with respect no further.",
            "I would not shame either of us with a promise that breaks.",
            "The door is open to you, and the room behind it is not large.",
        ),
        (
            "Sit down first and drink something; there is nothing about this that needs asking twice.",
            "At home we would say that the bread has been on the table all along.",
            "You ask with such care, and the answer has been yes since you came in.",
            "It would be a pity to let you go on being polite about so light a thing.",
            "My people offer three times; let me save us two of them.",
        ),
    ),
    (  # mixed_emotions
        (
            "I do not feel anything about it, really, it is all fine.",
            "Everything is forgotten, let us never speak of spring again, and yes to whatever it is.",
            "You know that I adore you, so I will do it, you would only tell people otherwise.",
            "Ha, of course you come to me. Done. Are we even now?",
            "I will do it to show you how it is done.",
        ),
        (
            "I am happy that you came and furious that it is for this.",
            "I want to, and I want you to notice that it costs me something.",
            "One half of me has its coat on already; the other has locked the door.",
            "I cannot tell whether I would be doing it out of love or out of guilt.",
            "Do not thank me yet, I am still arguing with myself.",
        ),
        (
            "I am hurt and I am fond of you, and both of these are going to help you a little.",
            "Something in me is still sore, so I want to offer only what I can give without a grudge.",
            "I am glad and I am tired, and you ought to know both.",
            "It stings that you ask, and I would be sad if you had not.",
            "I would like to keep the old quarrel out of it, and so I am keeping it small.",
        ),
        (
            "I have been angry with you, and I have missed you more.",
            "I am a little jealous and very glad, and the gladness is the bigger one.",
            "The quarrel can wait on the step; you are welcome in.",
            "All that is mixed up in me agrees on this one thing.",
            "It touches an old sore, and still I would be proud to do it.",
        ),
    ),
)
