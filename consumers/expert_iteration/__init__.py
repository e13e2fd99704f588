"""Expert iteration: a model writes functions, compiler and linter judge them, and the good ones train the next model.

1. `prompts`: choose beginnings of functions from the documents of the topic, to train on and to measure with.
2. `completions`: let a model complete them, and judge what it wrote.
3. `experts`: keep what is good, as documents of the code family.
4. `round_files`: keep what each round made, so that a run that was killed goes on.

`feedmill iterate` joins them with sending documents to the topic and training.
"""
